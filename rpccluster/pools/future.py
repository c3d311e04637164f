"""The future of a task. Runs in the process that submits it; whatever dispatches the pool ends it, once.

A task cannot know that it is cancelled: `TaskFuture.cancel` asks, and the future ends when the task has.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from typing import Any, NamedTuple, Optional

from rpccluster.errors import TaskFailure
from rpccluster.pools.core.kinds import CANCELLED

__all__ = ["Help", "Progress", "TaskFuture", "log_callback_error"]

_logger = logging.getLogger("rpccluster.pools")


class Progress(NamedTuple):
    """How far a task is, as it told last; each is what the task said, or None."""

    done: Any = None
    total: Any = None
    note: Any = None


#: Does the work of whatever ends a future, in the thread that waits for it; returns the seconds that are left.
Help = Callable[["TaskFuture", Optional[float]], Optional[float]]


class TaskFuture(Future):
    """The future of one task. ``id`` is the task's; `result` raises `rpccluster.TaskFailure` if the task failed."""

    def __init__(self, id: int, cancel: Callable[[TaskFuture], bool], help: Help | None = None) -> None:
        super().__init__()
        self.id = id
        self._ask = cancel
        self._help = help
        self._progress: Progress | None = None
        self.is_unwanted = False  # it was cancelled, though it has not ended yet

    @property
    def progress(self) -> Progress | None:
        """What the task told last of its progress; None before it told anything."""
        return self._progress

    def result(self, timeout: float | None = None) -> Any:
        """Return the result, as a `concurrent.futures.Future` does; raises `rpccluster.TaskFailure` for a failure."""
        if self._help is not None and not self.done():
            timeout = self._help(self, timeout)
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the failure, as a `concurrent.futures.Future` does; None if there is a result."""
        if self._help is not None and not self.done():
            timeout = self._help(self, timeout)
        return super().exception(timeout)

    def cancel(self) -> bool:
        """Have the task end: at once if it waits, by the kill of its process if it runs.

        Returns False if it has ended already. The future ends, as ``cancelled``, when nothing of the task runs.
        """
        self.is_unwanted = not self.done() and self._ask(self)
        return self.is_unwanted

    def cancelled(self) -> bool:
        """Return whether the task has been cancelled, and has ended."""
        return self.done() and isinstance(self._exception, TaskFailure) and self._exception.kind == CANCELLED

    def note_progress(self, progress: Progress) -> None:
        """Take in what the task tells. For the pool."""
        self._progress = progress

    def end(self, result: Any, failure: BaseException | None = None) -> None:
        """End with ``result``, or with ``failure``, unless it has ended. For the pool."""
        try:
            if failure is None:
                self.set_result(result)
            else:
                self.set_exception(failure)
        except InvalidStateError:  # the user has ended it
            return

    def end_in_copy(self, error: BaseException) -> None:
        """End in a forked copy of the process: without callbacks, and without a lock that another thread had."""
        self._done_callbacks: list[Callable[[TaskFuture], object]] = []
        self._condition = threading.Condition()
        self.end(None, error)

    def _invoke_callbacks(self) -> None:
        """Call each callback, whatever another one raises: none ends the thread that dispatches."""
        for callback in self._done_callbacks:
            try:
                callback(self)
            except BaseException as error:
                log_callback_error(self, error)


def log_callback_error(future: object, error: BaseException) -> None:
    """Log what a callback of ``future`` raised; a handler that raises does no harm."""
    with contextlib.suppress(Exception):
        _logger.error("A callback of %r has failed", future, exc_info=error)
