"""What a killed dispatcher has left behind: which of its tasks run, have ended, or must be begun. Runs in the
dispatcher.

The journal names every task that was sent to a process and whose outcome its submitter may not have. When the process
joins, its tickets are read back, its socket is read empty, and its cells are read before that. Then each entry is one
of:

- taken back, so it has not begun, and runs as if it had never been sent;
- told of in the socket: that is its outcome;
- the running one, or the one that the process is about to begin: its outcome comes;
- begun and ended, but its outcome was read by the dispatcher that was killed: the task is lost, and never runs again.

A process that the master does not have any more has taken all of its tasks along, unless the master tells what had
begun there, and what it was killed for.
Submitters send again what they wait for; a task that nobody claims in time is ended, since its submitter has gone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from enum import Enum
from typing import NamedTuple

from rpccluster.ipc.messages import TaskProcessGone
from rpccluster.services.dispatcher.journal import Entry
from rpccluster.tasks.wire import Done

__all__ = ["CLAIM_SECONDS", "Fate", "Finding", "Left", "of_gone", "of_living"]

CLAIM_SECONDS = 10.0  # in which submitters send again what they wait for


class Fate(Enum):
    """What has become of a task."""

    NOT_BEGUN = "it has not begun"
    RUNS = "it runs, or is about to"
    ENDED = "it has ended, and its outcome is here"
    LOST = "it has begun, and its outcome is lost"


class Finding(NamedTuple):
    """The fate of one task, and its outcome if that is here, or the end of its process while it ran."""

    entry: Entry
    fate: Fate
    done: Done | None = None
    gone: TaskProcessGone | None = None


class Left:
    """The tasks of a journal whose fate is not known yet, by the process they were sent to."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._by_serial: dict[int, dict[int, Entry]] = {}
        self._serials: dict[int, int] = {}
        self.add(entries)

    def add(self, entries: Iterable[Entry]) -> None:
        """Note tasks whose fate is not known yet, or will be known only when their process has ended."""
        for entry in entries:
            self._by_serial.setdefault(entry.serial, {})[entry.task_id] = entry
            self._serials[entry.task_id] = entry.serial

    def __contains__(self, task_id: object) -> bool:
        return task_id in self._serials

    def __bool__(self) -> bool:
        return bool(self._serials)

    def take(self, serial: int) -> list[Entry]:
        """Return the tasks of one process, whose fate will now be known."""
        entries = list(self._by_serial.pop(serial, {}).values())
        for entry in entries:
            del self._serials[entry.task_id]
        return entries

    def serials(self) -> list[int]:
        """Return the processes of which nobody has told yet."""
        return list(self._by_serial)


def of_living(
    entries: Iterable[Entry], tickets: Collection[int], dones: Iterable[Done], running: int, begun: int
) -> Iterator[Finding]:
    """Yield the fate of each task of a process that lives.

    ``running`` and ``begun`` are its cells, read before the ``tickets`` were read back and ``dones`` were received.
    """
    ended = {done.number: done for done in dones}
    for entry in entries:
        if entry.number in ended:
            yield Finding(entry, Fate.ENDED, ended[entry.number])
        elif entry.number in tickets:
            yield Finding(entry, Fate.NOT_BEGUN)
        elif entry.number == running or entry.number > begun:
            yield Finding(entry, Fate.RUNS)
        else:
            yield Finding(entry, Fate.LOST)


def of_gone(entries: Iterable[Entry], gone: TaskProcessGone | None) -> Iterator[Finding]:
    """Yield the fate of each task of a process that has ended; ``gone`` is None if nobody knows what it had begun."""
    for entry in entries:
        if gone is not None and entry.number > gone.begun:
            yield Finding(entry, Fate.NOT_BEGUN)
        else:
            yield Finding(entry, Fate.LOST, gone=gone if gone is not None and entry.number == gone.number else None)
