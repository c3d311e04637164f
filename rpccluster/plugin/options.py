"""The options of its section that the process of a plugin reads. Runs in the child."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Any, Protocol

__all__ = ["RunOptions"]


class RunOptions(Protocol):
    """The part of a plugin's options that its own process needs.

    ``args`` holds one argument or none. ``also_run`` names what to call if there is no module that ``run`` names.
    """

    @property
    def run(self) -> str: ...
    @property
    def also_run(self) -> str: ...
    @property
    def command(self) -> tuple[str, ...]: ...
    @property
    def args(self) -> tuple[Any, ...]: ...
    @property
    def env(self) -> Mapping[str, str]: ...
    @property
    def ready(self) -> str: ...
    @property
    def stop_signal(self) -> signal.Signals: ...
    @property
    def timeout(self) -> float: ...
    @property
    def nice(self) -> int | None: ...
    @property
    def log_level(self) -> str: ...
    @property
    def pythonpath(self) -> tuple[str, ...]: ...
