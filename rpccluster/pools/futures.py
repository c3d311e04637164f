"""All that a submitter has of its tasks: their futures and callbacks, and who waits for them.

Each task ends once here: first its future, then its callback, and only then is it *told*. `Futures.wait` waits for
that. Runs in the process that submits; whatever dispatches calls `end` in any thread, without its own locks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

from rpccluster.errors import TaskFailure
from rpccluster.failure import error_text
from rpccluster.pools.callbacks import Callbacks
from rpccluster.pools.core import kinds
from rpccluster.pools.future import Help, Progress, TaskFuture
from rpccluster.pools.submission import Callback, class_callbacks, failure_of, unpacked_result

__all__ = ["Entry", "Futures"]

_MOST_TARGETS = 1000  # whose classes are remembered


class Entry:
    """One task: its future, and the pairs of callbacks of all that submitted it by its key."""

    __slots__ = ("callbacks", "future")

    def __init__(self, future: TaskFuture) -> None:
        self.future = future
        self.callbacks: list[tuple[Callback | None, Callback | None]] = []

    def note_progress(self, progress: Progress) -> None:
        """Take in what the task told of its progress."""
        self.future.note_progress(progress)


class Futures:
    """The futures of one submitter that have not been told yet."""

    def __init__(self, cancel: Callable[[TaskFuture], bool], help: Help | None = None) -> None:
        """``cancel`` asks for the end of a future's task, and returns whether it had not ended."""
        self._cancel = cancel
        self._help = help
        self._callbacks = Callbacks(self._note_told)
        self._untold: dict[TaskFuture, None] = {}  # in the order in which they came
        self._class_callbacks: dict[str, tuple[Callback | None, Callback | None]] = {}
        self._changed = threading.Condition()
        self._waiters = 0

    def add(self, id: int, target: str, on_success: Callback | None, on_error: Callback | None) -> Entry:
        """Make the future of a task."""
        entry = Entry(TaskFuture(id, self._cancel, self._help))
        self._untold[entry.future] = None
        self.add_callbacks(entry, target, on_success, on_error)
        return entry

    def add_callbacks(self, entry: Entry, target: str, on_success: Callback | None, on_error: Callback | None) -> None:
        """Have one of two callbacks called at the task's end; those of a class target are its own, unless given."""
        if on_success is None and on_error is None:
            on_success, on_error = self._callbacks_of(target)
        if on_success is not None or on_error is not None:
            entry.callbacks.append((on_success, on_error))

    def _callbacks_of(self, target: str) -> tuple[Callback | None, Callback | None]:
        found = self._class_callbacks.get(target)
        if found is None:
            if len(self._class_callbacks) >= _MOST_TARGETS:
                self._class_callbacks.clear()
            found = self._class_callbacks[target] = class_callbacks(target)
        return found

    def end(self, entry: Entry, kind: str, attempt: int, pid: int | None, detail: Any) -> None:
        """End a task: ``detail`` is what was told of its last attempt (`failure_of`)."""
        failure = value = None
        if kind == kinds.OK:
            try:
                value = unpacked_result(detail.payload)
            except BaseException as error:
                text = f"cannot unpack the result: {error_text(error)}"
                failure = TaskFailure(kinds.RAISED, "ResultNotUnpacked", text, "", entry.future.id, attempt, pid)
        else:
            failure = failure_of(entry.future.id, attempt, kind, pid, detail)
        entry.future.end(value, failure)
        calls = [pair[failure is not None] for pair in entry.callbacks]
        if any(calls):
            self._callbacks.call(
                entry.future, [call for call in calls if call is not None], value if failure is None else failure
            )
        else:
            self._note_told(entry.future)

    def forget(self, entry: Entry, refusal: BaseException) -> None:
        """Drop a task that was not taken in; its future ends with ``refusal``, for those that share it by its key."""
        entry.future.end(None, refusal)
        self._note_told(entry.future)

    def wait(self, futures: Iterable[TaskFuture] | None = None, timeout: float | None = None) -> bool:
        """Wait until ``futures``, all of them if None, have ended and their callbacks have run. False: not in time.

        Raises RuntimeError in a callback, which would wait for itself.
        """
        if self._callbacks.is_here:
            raise RuntimeError("a callback cannot wait for its pool, which waits for the callback")
        wanted = None if futures is None else list(futures)
        with self._changed:
            self._waiters += 1
            try:
                return self._changed.wait_for(lambda: self._are_told(wanted), timeout)
            finally:
                self._waiters -= 1

    def _are_told(self, wanted: list[TaskFuture] | None) -> bool:
        if wanted is None:
            return not self._untold
        while wanted and wanted[-1] not in self._untold:
            wanted.pop()
        return not wanted

    def _note_told(self, future: TaskFuture) -> None:
        self._untold.pop(future, None)
        if self._waiters:
            with self._changed:
                self._changed.notify_all()

    def close(self) -> None:
        """End the thread of the callbacks, after the last of them."""
        self._callbacks.end()

    def leave(self, error: BaseException) -> None:
        """End all futures in a forked copy of the process, where nobody will: without callbacks, and without locks."""
        for future in list(self._untold):
            future.end_in_copy(error)
        self._untold.clear()
