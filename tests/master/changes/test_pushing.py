"""Pushing settings: one refusal, end or silence ends the vote; when all agree, all are told to switch."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from rpccluster.ipc.messages import Propose, ReopenLogs, Switch, Vote
from rpccluster.ipc.scoreboard import CommonCell
from rpccluster.live_settings import Given
from rpccluster.log import LogFiles
from rpccluster.master.changes.pushing import UNHEARD_SECONDS, Pushing

from ..made_up import cluster, group, ready, retiring

NEXT = Given(2, {"price": "2"}, {"price": "config set"})
SWITCH = Switch(2, {"price": "2"}, {"price": "config set"}, {"call_timeout": 2.0})


class Pushed:
    """A cluster of two ready workers and a retiring one, asked to vote; keeps what they are told."""

    def __init__(self) -> None:
        self.now = 100.0
        self.told: list[tuple[Any, Any]] = []
        self.workers = group(ready(0), ready(1), retiring(2))
        self.workers.is_drained = True
        self.commands_told = 0
        roster: Any = SimpleNamespace(
            say=lambda child, *message: self.told.append((child.slot, *message)), tell_of_settings=self._tell_commands
        )
        groups: Any = SimpleNamespace(all=[self.workers])
        self.pushing = Pushing(cluster(), groups, roster, lambda: self.now)
        self.pushing.begin(NEXT)

    def _tell_commands(self) -> None:
        self.commands_told += 1

    def vote(self, slot: int, refusal: str = "", attempt: int = 1) -> None:
        self.pushing.note_vote(self.workers.children[slot], Vote(attempt, refusal))

    @property
    def outcome(self) -> tuple[bool, str]:
        return self.pushing.is_under_way, self.pushing.failure

    def refusals(self) -> list[str]:
        return [child.refusal for child in self.workers.children]


def proposal(attempt: int = 1) -> Propose:
    return Propose(attempt, 2, {"price": "2"}, {"price": "config set"})


def test_all_agree_and_switch() -> None:
    """The retiring one has no vote, but switches, too; the push is over when those that are ready have."""
    pushed = Pushed()
    assert pushed.told == [(0, proposal()), (1, proposal())]
    pushed.vote(0)
    assert pushed.outcome == (True, "")
    pushed.vote(1)
    assert pushed.outcome == (False, "")
    pushed.pushing.switch(SWITCH)
    assert pushed.told[2:] == [(0, SWITCH), (1, SWITCH), (2, SWITCH)]
    pushed.pushing.note_switched(pushed.workers.children[2])
    pushed.pushing.note_switched(pushed.workers.children[0])
    assert pushed.pushing.is_under_way
    pushed.pushing.note_end(pushed.workers.children[1])  # it has ended instead
    assert pushed.outcome == (False, "")
    assert pushed.pushing.wake_at == float("inf")
    assert pushed.commands_told == 0
    pushed.pushing.tell_commands()
    assert pushed.commands_told == 1


@pytest.mark.parametrize("how", ["refusal", "end", "silence"])
def test_one_that_does_not_agree_ends_the_vote(how: str) -> None:
    """And is named, and shown until the next vote. Votes of that attempt count nothing for the next."""
    pushed = Pushed()
    second = pushed.workers.children[1]
    who, shown = f"worker (pid: {second.pid}, slot: 1)", ""
    pushed.vote(0)
    if how == "refusal":
        pushed.vote(1, "price: too much")
        reason, shown = f"{who} refuses: price: too much", "price: too much"
    elif how == "end":
        pushed.pushing.note_end(second)
        reason = f"{who} ended before it had voted on price (config set)"
    else:
        pushed.now += 4.9
        pushed.pushing.turn()
        assert pushed.pushing.is_under_way
        pushed.now = pushed.pushing.wake_at
        pushed.pushing.turn()
        shown = "no vote within settings_timeout (5 s)"
        reason = f"{shown} from {who}, on price (config set)"
    assert pushed.outcome == (False, reason)
    assert pushed.refusals() == ["", shown, ""]
    pushed.vote(1)
    assert pushed.outcome == (False, reason)
    pushed.told.clear()
    pushed.pushing.begin(NEXT)
    assert pushed.refusals() == ["", "", ""]
    assert pushed.told == [(0, proposal(2)), (1, proposal(2))]
    pushed.vote(0)
    pushed.vote(1)
    assert pushed.pushing.is_under_way
    pushed.vote(0, attempt=2)
    pushed.vote(1, attempt=2)
    assert pushed.outcome == (False, "")


def test_a_vote_that_is_dropped_has_no_outcome() -> None:
    """Another change has overtaken it."""
    pushed = Pushed()
    pushed.pushing.drop()
    assert pushed.outcome == (False, "")
    pushed.vote(0, "too late")
    assert pushed.outcome == (False, "")


def test_one_that_cannot_be_heard_has_no_vote() -> None:
    """A function that has become another program lives on without its channel; one that ends so refuses."""
    pushed = Pushed()
    deaf: Any = pushed.workers.children[1]
    pushed.vote(0)
    deaf.reads_settings = False
    pushed.pushing.turn()
    assert pushed.pushing.wake_at == pushed.now + UNHEARD_SECONDS
    pushed.now = pushed.pushing.wake_at - 0.1
    pushed.pushing.turn()
    assert pushed.pushing.is_under_way
    pushed.now = pushed.pushing.wake_at
    pushed.pushing.turn()
    assert pushed.outcome == (False, "")
    pushed.pushing.begin(NEXT)
    pushed.pushing.note_end(deaf)
    assert pushed.pushing.failure == ""


def test_one_that_switches_late_is_not_waited_for() -> None:
    """The version is committed all the same. One that is born with it need not switch."""
    pushed = Pushed()
    pushed.vote(0)
    pushed.vote(1)
    pushed.workers.children[0].row[CommonCell.SETTINGS_VERSION] = 2
    pushed.pushing.switch(SWITCH)
    assert pushed.pushing.is_under_way
    pushed.now = pushed.pushing.wake_at
    pushed.pushing.turn()
    assert pushed.outcome == (False, "")


def test_without_voters_it_is_done_at_once() -> None:
    """A drained cluster, say."""
    pushed = Pushed()
    pushed.workers.children.clear()
    pushed.pushing.begin(NEXT)
    assert pushed.outcome == (False, "")


def test_workers_are_led_to_other_logs() -> None:
    """With the access log's path, and the descriptors."""
    pushed = Pushed()
    pushed.told.clear()
    pushed.pushing.lead_logs(LogFiles("", "on"))
    assert pushed.told == [(slot, ReopenLogs("on"), [2]) for slot in range(3)]
