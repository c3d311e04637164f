"""Pushing settings: one refusal, end or silence leaves everything as it was; else all switch to one version."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from rpccluster.config import Configuration, Options, Sources
from rpccluster.ipc.messages import Propose, Switch, Vote
from rpccluster.master.changes.pushing import UNHEARD_SECONDS, Pushing

from ..made_up import cluster, group, ready, retiring


class Pushed:
    """A cluster of two ready workers and a retiring one; keeps what they are told."""

    def __init__(self) -> None:
        self.now = 100.0
        self.told: list[tuple[Any, Any]] = []
        self.workers = group(ready(0), ready(1), retiring(2))
        self.cluster = cluster()
        self.commands_told = 0
        roster: Any = SimpleNamespace(
            say=lambda child, message: self.told.append((child.slot, message)), tell_of_settings=self._tell_commands
        )
        groups: Any = SimpleNamespace(all=[self.workers])
        self.pushing = Pushing(self.cluster, groups, roster, lambda: self.now)
        self.pushing.begin({"price": "2"})

    def _tell_commands(self) -> None:
        self.commands_told += 1

    def vote(self, slot: int, refusal: str = "", attempt: int = 1) -> None:
        self.pushing.note_vote(self.workers.children[slot], Vote(attempt, refusal))

    @property
    def outcome(self) -> tuple[bool, str, int, dict[str, str]]:
        settings = self.cluster.settings
        return self.pushing.is_under_way, self.pushing.failure, settings.number, dict(settings.texts)


def proposal(attempt: int = 1) -> Propose:
    return Propose(attempt, 2, {"price": "2"}, {"price": "config set"})


def test_all_agree_and_switch() -> None:
    """The retiring one has no vote, but switches, too; the push is over when the voters have."""
    pushed = Pushed()
    assert pushed.told == [(0, proposal()), (1, proposal())]
    pushed.vote(0)
    assert pushed.outcome == (True, "", 1, {})
    assert pushed.commands_told == 0
    pushed.vote(1)
    assert pushed.commands_told == 1
    message = Switch(2, {"price": "2"}, {"price": "config set"})
    assert pushed.told[2:] == [(0, message), (1, message), (2, message)]
    assert pushed.outcome == (True, "", 2, {"price": "2"})
    pushed.pushing.note_switched(pushed.workers.children[2])
    pushed.pushing.note_switched(pushed.workers.children[0])
    assert pushed.pushing.is_under_way
    pushed.pushing.note_end(pushed.workers.children[1])  # it has ended instead
    assert pushed.outcome == (False, "", 2, {"price": "2"})
    assert pushed.pushing.wake_at == float("inf")


@pytest.mark.parametrize("how", ["refusal", "end", "silence", "reload"])
def test_one_that_does_not_agree_leaves_everything(how: str) -> None:
    """And is named. Votes of that attempt count nothing for the next."""
    pushed = Pushed()
    first, second = pushed.workers.children[:2]
    pushed.vote(0)
    if how == "refusal":
        pushed.vote(1, "price: too much")
        reason = f"worker (pid: {second.pid}, slot: 1) refuses: price: too much"
    elif how == "end":
        pushed.pushing.note_end(second)
        reason = f"worker (pid: {second.pid}, slot: 1) ended before it had voted on price (config set)"
    elif how == "silence":
        pushed.now += 4.9
        pushed.pushing.turn()
        assert pushed.pushing.is_under_way
        pushed.now = pushed.pushing.wake_at
        pushed.pushing.turn()
        reason = (
            f"no vote within settings_timeout (5 s) from worker (pid: {second.pid}, slot: 1), on price (config set)"
        )
    else:
        pushed.cluster.configuration = Configuration(Options(service="a:b"), {}, Sources())
        pushed.vote(1)
        reason = "overtaken by a reload"
    assert pushed.outcome == (False, reason, 1, {})
    pushed.vote(1)
    assert pushed.outcome == (False, reason, 1, {})
    pushed.told.clear()
    pushed.pushing.begin({"price": "2"})
    assert pushed.told == [(0, proposal(2)), (1, proposal(2))]
    pushed.vote(0)
    pushed.vote(1)
    assert pushed.outcome[0]
    pushed.vote(0, attempt=2)
    pushed.vote(1, attempt=2)
    assert pushed.outcome[2:] == (2, {"price": "2"})
    assert first in pushed.workers.children


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
    assert pushed.outcome == (True, "", 2, {"price": "2"})
    pushed.pushing.note_switched(pushed.workers.children[0])
    assert pushed.outcome == (False, "", 2, {"price": "2"})
    pushed.pushing.begin({"price": "3"})
    pushed.pushing.note_end(deaf)
    assert pushed.pushing.failure == ""


def test_one_that_switches_late_is_not_waited_for() -> None:
    """The version is committed all the same."""
    pushed = Pushed()
    pushed.vote(0)
    pushed.vote(1)
    pushed.now = pushed.pushing.wake_at
    pushed.pushing.turn()
    assert pushed.outcome == (False, "", 2, {"price": "2"})


def test_without_voters_it_is_done_at_once() -> None:
    """A drained cluster, say."""
    pushed = Pushed()
    pushed.workers.children.clear()
    pushed.pushing.begin({"price": "3"})
    assert pushed.outcome == (False, "", 2, {"price": "3"})
