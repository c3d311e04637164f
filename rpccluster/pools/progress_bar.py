"""The progress bar of `TaskPool.map`: drawn by rich, on stderr, if that is a terminal and rich is installed.

Runs in the program. Elsewhere there is no bar, and nothing is written.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import TracebackType
from typing import Any

__all__ = ["Bar", "no_bar", "progress_bar"]


class Bar:
    """A bar that is not drawn; `_RichBar` is."""

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, type_: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def advance(self) -> None:
        """Count one more result."""


class _RichBar(Bar):
    def __init__(self, rich_progress: Any, text: str, total: int | None) -> None:
        self._progress = rich_progress
        self._task = rich_progress.add_task(text, total=total)

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(
        self, type_: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def advance(self) -> None:
        self._progress.advance(self._task)


def no_bar() -> Bar:
    """Return the bar of a `map` that wants none."""
    return Bar()


def progress_bar(wish: bool | str, target: str, iterables: tuple[Iterable[Any], ...]) -> Bar:
    """Return a bar for one `map`; its text is ``wish`` if that is one, else the target."""
    if not sys.stderr.isatty():
        return Bar()
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError:
        return Bar()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return _RichBar(
        Progress(*columns, console=Console(stderr=True)), wish if isinstance(wish, str) else target, _total(iterables)
    )


def _total(iterables: tuple[Iterable[Any], ...]) -> int | None:
    """Return how many results there will be; None if an iterable cannot tell."""
    try:
        return min(len(iterable) for iterable in iterables)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
