"""Makes the runner of click for the tests beside it. Test process only."""

from __future__ import annotations

import inspect
from typing import Any

from click.testing import CliRunner

__all__ = ["runner"]


def runner() -> CliRunner:
    """Which tells stdout from stderr; click before 8.2 must be asked to."""
    asked: Any = {"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {}
    return CliRunner(**asked)
