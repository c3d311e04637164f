"""Questions to children: each gets one answer, whatever becomes of the child."""

from __future__ import annotations

from typing import Any

import pytest

from rpccluster.ipc.messages import Findings, Inquire
from rpccluster.master.kinds.services.asking import Asking

from ...made_up import ready


class Asked:
    """Questions, and the answers that came."""

    def __init__(self) -> None:
        self.now = 10.0
        self.sent: list[tuple[Any, Any]] = []
        roster: Any = self
        self.asking = Asking(roster, lambda: self.now)
        self.answers: list[tuple[str, Any]] = []

    def say(self, child: Any, message: Any) -> None:
        """What the roster does."""
        self.sent.append((child, message))

    def ask(self, child: Any, seconds: float = float("inf")) -> int:
        """Ask one thing; return its number."""
        self.asking.ask(child, "calls", [1], lambda *answer: self.answers.append(answer), seconds)
        number: int = self.sent[-1][1].number
        return number


@pytest.fixture
def asked() -> Asked:
    """Nothing was asked yet."""
    return Asked()


def test_an_answer_goes_to_whoever_asked(asked: Asked) -> None:
    """By its number, and once."""
    child = ready(0)
    first, second = asked.ask(child), asked.ask(child)
    assert asked.sent == [(child, Inquire(first, "calls", [1])), (child, Inquire(second, "calls", [1]))]
    asked.asking.hear(Findings(second, "b"))
    asked.asking.hear(Findings(first, None, "ValueError: no"))
    asked.asking.hear(Findings(first, "again"))
    assert asked.answers == [("", "b"), ("ValueError: no", None)]
    assert asked.asking.wake_at == float("inf")


def test_a_child_that_ends_answers_nothing(asked: Asked) -> None:
    """Those of other children stay."""
    first, second = ready(0), ready(1)
    asked.ask(first)
    asked.ask(second)
    asked.asking.note_end(first)
    assert asked.answers == [(f"RuntimeError: the process {first.pid} has ended", None)]


def test_a_silent_child_is_not_waited_for(asked: Asked) -> None:
    """Past the deadline of the question, which wakes the master; a late answer is dropped."""
    child = ready(0)
    number = asked.ask(child, 2.0)
    asked.ask(child)
    assert asked.asking.wake_at == 12.0
    asked.now = 11.9
    asked.asking.turn()
    assert asked.answers == []
    asked.now = 12.0
    asked.asking.turn()
    assert asked.answers == [(f"RuntimeError: the process {child.pid} does not answer", None)]
    asked.asking.hear(Findings(number, "late"))
    assert len(asked.answers) == 1
    assert asked.asking.wake_at == float("inf")
