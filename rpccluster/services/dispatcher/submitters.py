"""The processes that submit tasks, and what each is still to be told. Runs in the dispatcher.

A submitter names itself in each call by a token that begins with its pid. It takes events: that a task was let into a
full pool, how far it is, how it has ended. Each has a number, and is told until the submitter has named that number in
a later call, so nothing is lost with a connection. A submitter whose process has ended is gone with all that was its
own.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from typing import Any

from rpccluster.service import Later

__all__ = ["ACCEPTED", "MOVING", "PROGRESS", "Submitter", "Submitters"]

#: What an event tells beside the kinds of ends.
ACCEPTED, PROGRESS = "accepted", "progress"
#: The name of a dispatcher whose successor starts in a moment.
MOVING = 0

_MOST_EVENTS = 1000  # in one answer
_MOST_BYTES = 16 << 20  # of payloads in one answer, beyond the first


class Submitter:
    """One process that submits. ``ids`` are the tasks whose end it waits for."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.pid = int(token.partition("-")[0])
        self.ids: set[int] = set()
        self.ended: set[int] = set()  # whose end it was told, perhaps
        self.round = 0  # how often it has begun to send all again
        self.watcher: Any = None
        self.descriptor = -1  # of its process
        self._events: deque[list[Any]] = deque()
        self._progress: dict[int, list[Any]] = {}  # the event that waits, by the task
        self._number = 0
        self._later: Later | None = None

    @property
    def has_events(self) -> bool:
        """Whether it has not confirmed all that it was told, or is to be."""
        return bool(self._events)

    @property
    def is_waiting(self) -> bool:
        """Whether it waits for events that are there."""
        return self._later is not None and self.has_events

    def tell(self, task_id: int, what: str, *fields: Any) -> None:
        """Add an event; of a task's progress only the last counts."""
        if what == PROGRESS and task_id in self._progress:
            self._progress[task_id][3:] = fields
            return
        self._number += 1
        event = [self._number, task_id, what, *fields]
        self._events.append(event)
        if what == PROGRESS:
            self._progress[task_id] = event

    def confirm(self, number: int) -> list[int]:
        """Forget the events up to ``number``. Returns the tasks whose ends are among them."""
        ended = []
        while self._events and self._events[0][0] <= number:
            _, task_id, what, *_ = self._events.popleft()
            if what == PROGRESS:
                self._progress.pop(task_id, None)
            elif what != ACCEPTED:
                self.ended.discard(task_id)
                ended.append(task_id)
        return ended

    def take(self) -> Later:
        """Return what answers a call for events; an earlier one is answered without any."""
        self.answer([0, []])
        self._later = Later()
        return self._later

    def answer(self, value: Any) -> None:
        """Answer the call that waits for events, if one does."""
        later, self._later = self._later, None
        if later is not None:
            later.reply(value)

    def events(self) -> list[list[Any]]:
        """Return the first events that are not confirmed, as many as one answer may have."""
        self._progress.clear()  # those are told as they are now
        found: list[list[Any]] = []
        size = 0
        for event in self._events:
            size += sum(len(field) for field in event if type(field) is bytes)
            if found and (len(found) >= _MOST_EVENTS or size > _MOST_BYTES):
                break
            found.append(event)
        return found


class Submitters:
    """All submitters by their tokens. ``name`` is this dispatcher's own, which no other one has."""

    def __init__(self, loop: Any, name: int, on_gone: Callable[[Submitter], object]) -> None:
        """``on_gone`` gets each submitter whose process has ended, or that has left."""
        self.name = name
        self._loop = loop
        self._on_gone = on_gone
        self._by_token: dict[str, Submitter] = {}
        self._told: set[Submitter] = set()
        self._flush_is_due = False

    def of(self, token: str) -> Submitter:
        """Return the submitter with that token; a new one is watched from now on. Raises ValueError for no token."""
        submitter = self._by_token.get(token)
        if submitter is None:
            submitter = self._by_token[token] = Submitter(token)
            self._watch(submitter)
        return submitter

    def _watch(self, submitter: Submitter) -> None:
        try:
            submitter.descriptor = os.pidfd_open(submitter.pid)
        except ProcessLookupError:
            self._loop.run_callback(self.leave, submitter)
            return
        except (AttributeError, OSError):  # PyPy and old kernels have none
            submitter.watcher = self._loop.timer(1.0, 1.0)
            submitter.watcher.start(self._look, submitter)
            return
        submitter.watcher = self._loop.io(submitter.descriptor, 1)
        submitter.watcher.start(self.leave, submitter)

    def _look(self, submitter: Submitter) -> None:
        try:
            os.kill(submitter.pid, 0)
        except ProcessLookupError:
            self.leave(submitter)
        except PermissionError:
            pass

    def leave(self, submitter: Submitter) -> None:
        """Forget a submitter."""
        if self._by_token.pop(submitter.token, None) is not None:
            if submitter.watcher is not None:
                submitter.watcher.stop()
                submitter.watcher.close()
            if submitter.descriptor >= 0:
                os.close(submitter.descriptor)
            self._told.discard(submitter)
            submitter.answer([self.name, []])
            self._on_gone(submitter)

    def all(self) -> list[Submitter]:
        """Return all submitters."""
        return list(self._by_token.values())

    def tell(self, submitter: Submitter, task_id: int, what: str, *fields: Any) -> None:
        """Tell a submitter of an event, together with all others of this turn of the loop."""
        submitter.tell(task_id, what, *fields)
        self._told.add(submitter)
        if not self._flush_is_due:
            self._flush_is_due = True
            self._loop.run_callback(self._flush)

    def _flush(self) -> None:
        self._flush_is_due = False
        told, self._told = self._told, set()
        for submitter in told:
            if submitter.is_waiting:
                submitter.answer([self.name, submitter.events()])
