"""The calls that wait for their turn, in two queues: whoever sends little does not wait for all who send much.

Runs in the worker. Of the long batches one is in `ready` at a time, behind the light ones that were there; so a light
one waits for one of them at most, and each turn of the loop serves some of one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterator
from copy import copy
from itertools import chain
from operator import length_hint
from typing import Any

from rpccluster.worker.hot.caller import Batch, Caller

__all__ = ["ReadyQueue"]


class ReadyQueue:
    """``ready`` is what the engine takes from; ``add`` and ``add_long`` put a batch behind the others of its kind."""

    def __init__(self) -> None:
        self.ready: deque[Batch] = deque()
        self.long: deque[Batch] = deque()
        self.add = self.ready.append
        self.add_long = self.long.append
        self._turn: Iterator[Any] = iter(())  # the messages of the long batch that is in `ready`

    def go_on(self) -> None:
        """The next long batch has its turn, if the last one is used up."""
        if not length_hint(self._turn):
            self.ready.append(self.long.popleft())
            self._turn = self.ready[-1][1]

    @property
    def waiting(self) -> int:
        """How many calls there are."""
        return sum(length_hint(messages) for _, messages in chain(self.ready, self.long))

    def waiting_messages(self) -> dict[Caller, list[Any]]:
        """All of them, by connection; they stay where they are."""
        waiting: dict[Caller, list[Any]] = {}
        for connection, messages in chain(self.ready, self.long):
            if length_hint(messages):
                waiting.setdefault(connection, []).extend(copy(messages))  # of an iterator: taking changes it
        return waiting

    def withdraw(self, connections: Container[Caller]) -> dict[Caller, list[Any]]:
        """Take the messages of ``connections`` out."""
        taken: dict[Caller, list[Any]] = {}
        for connection, messages in chain(self.ready, self.long):
            if connection in connections and length_hint(messages):
                taken.setdefault(connection, []).extend(messages)
        return taken
