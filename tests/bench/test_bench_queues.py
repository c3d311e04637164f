"""The scenario of queues: a peer that does not end its work costs its own figure, not the others'."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from bench.errors import BenchError
from bench.scenarios import queues


def test_a_load_that_does_not_end_is_a_figure_less(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **options: Any) -> None:
        raise subprocess.TimeoutExpired(command, options["timeout"])

    monkeypatch.setattr(queues.subprocess, "run", run)
    with pytest.raises(BenchError, match="litequeue: it did not end within 70 seconds"):
        queues._load("litequeue", "address", "get", 64, 1.0)
