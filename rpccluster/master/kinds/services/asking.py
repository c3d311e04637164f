"""Questions of the master to its children, and who waits for the answers. Runs in the master.

A child answers in a turn of its own loop. One that is held up does not, and one may end before it does: so a question
may have a deadline, and each gets exactly one answer.
"""

from __future__ import annotations

import itertools
from typing import Any, Callable, NamedTuple

from rpccluster.ipc.messages import Findings, Inquire
from rpccluster.master.children.child import Child
from rpccluster.master.children.roster import Roster

__all__ = ["Asking", "Told"]


#: Gets an error, or an answer.
Told = Callable[[str, Any], None]


class _Open(NamedTuple):
    child: Child
    told: Told
    ends_at: float  # monotonic seconds


class Asking:
    """The questions that are not answered yet."""

    def __init__(self, roster: Roster, clock: Callable[[], float]) -> None:
        """``clock`` returns monotonic seconds."""
        self._roster = roster
        self._clock = clock
        self._numbers = itertools.count(1)
        self._open: dict[int, _Open] = {}

    def ask(self, child: Child, what: str, params: list[Any], told: Told, seconds: float = float("inf")) -> None:
        """Inquire ``child``; ``told`` gets the answer, or the text of an error."""
        number = next(self._numbers)
        self._open[number] = _Open(child, told, self._clock() + seconds)
        self._roster.say(child, Inquire(number, what, params))

    def hear(self, message: Findings) -> None:
        """Take the answer of a child; one that comes too late is dropped."""
        question = self._open.pop(message.number, None)
        if question is not None:
            question.told(message.error, message.value)

    def note_end(self, child: Child) -> None:
        """Answer what a child was asked that has ended."""
        self._give_up(lambda question: question.child is child, "has ended")

    @property
    def wake_at(self) -> float:
        """When the next question passes its deadline (monotonic seconds); infinity if none does."""
        return min([question.ends_at for question in self._open.values()]) if self._open else float("inf")

    def turn(self) -> None:
        """Answer what has passed its deadline."""
        if not self._open:
            return
        now = self._clock()
        if now >= self.wake_at:
            self._give_up(lambda question: now >= question.ends_at, "does not answer")

    def _give_up(self, is_over: Callable[[_Open], bool], reason: str) -> None:
        for number, question in list(self._open.items()):
            if is_over(question):
                del self._open[number]
                question.told(f"RuntimeError: the process {question.child.pid} {reason}", None)
