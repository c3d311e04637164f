"""Answers that take long to make are made in pieces, one in a turn of the master's loop. Runs in the master.

A work is a generator. After each small step it yields how many rows that has read or made; what it returns is the
answer. So the master hears its workers and signals meanwhile, however many processes ``status`` has to tell of.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from typing import Any, Callable, NamedTuple, Protocol, TypeVar

from rpccluster.failure import error_text
from rpccluster.log import logger

__all__ = ["ROWS_A_TURN", "Pieces", "Work"]

ROWS_A_TURN = 100  # about 3 ms

_Made = TypeVar("_Made")

#: Yields the numbers of rows of its steps, and returns what it has made.
Work = Generator[int, None, _Made]


class Awaited(Protocol):
    """An answer, whose caller may go."""

    @property
    def is_awaited(self) -> bool:
        """Whether it is still wanted."""

    def __call__(self, error: str | None, result: Any) -> None:
        """Send it."""


class _Begun(NamedTuple):
    work: Work[Any]
    answer: Awaited
    then: Callable[[Any], None]


class Pieces:
    """The works that are not done yet. The first one is done first."""

    def __init__(self) -> None:
        self._begun: deque[_Begun] = deque()

    @property
    def wake_at(self) -> float:
        """When `turn` must be called again: at once (minus infinity), or never by itself (infinity)."""
        return float("-inf") if self._begun else float("inf")

    def begin(self, work: Work[_Made], answer: Awaited, then: Callable[[_Made], None] | None = None) -> None:
        """Have ``work`` done from the next `turn` on. ``then`` gets what it has made; without it, ``answer`` does."""
        self._begun.append(_Begun(work, answer, then or (lambda made: answer(None, made))))

    def turn(self) -> None:
        """Do some steps of the first work, until they have had `ROWS_A_TURN` rows or it is done."""
        rows = 0
        while self._begun and rows < ROWS_A_TURN:
            begun = self._begun[0]
            try:
                rows += next(begun.work) if begun.answer.is_awaited else self._drop()
            except StopIteration as end:
                self._drop()
                begun.then(end.value)
                return  # to pack what was made takes its time, too
            except Exception as error:  # the client must hear of it
                self._drop()
                logger.exception("Cannot make the answer to a control method")
                begun.answer(error_text(error), None)
                return

    def _drop(self) -> int:
        self._begun.popleft()
        return 0

    def end(self) -> None:
        """Do all that is left."""
        while self._begun:
            self.turn()
