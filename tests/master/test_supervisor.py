"""The master's loop: how long it sleeps, and what makes it look again; its parts are made up."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from rpccluster.master.children.policy import LATE_SECONDS
from rpccluster.master.guard import Guard
from rpccluster.master.phases import Phase
from rpccluster.master.supervisor import RETRY_SECONDS, Supervisor

SLEEPERS = [
    "groups",
    "brokers",
    "control",
    "upkeep",
    "new_master",
    "code_watch",
    "config_watch",
    "pushing",
    "asking",
    "saving",
    "commands",
    "pieces",
    "led_listeners",
    "coordinating",
    "notices",
    "warden",
    "taking",
    "giving",
]

SHOWN = ["move connections whose callers wait", "do what is due", "move connections"]


class MadeUpParts:
    """Parts that note nothing, but when they want to be woken. The loop sleeps as long as it is told, or longer."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.slept: list[float | None] = []
        self.overslept = 0.0
        self.excused: list[float] = []
        self.guard = Guard(lambda: self.time)
        self.loop = SimpleNamespace(turn=self._sleep)
        self.workers = self.broker = SimpleNamespace()
        self.cluster = SimpleNamespace(phase=Phase.RUNNING, logs=SimpleNamespace(is_waiting=False))
        for name in SLEEPERS:
            setattr(self, name, SimpleNamespace(wake_at=math.inf))
        self.services = SimpleNamespace(asking=self.asking, coordinating=self.coordinating)  # type: ignore[attr-defined]
        self.notices.is_waiting = False  # type: ignore[attr-defined]
        self.groups.excuse = self.excused.append  # type: ignore[attr-defined]

    def now(self) -> float:
        return self.time

    def logs(self) -> list[Any]:
        return [self.cluster.logs]

    def _sleep(self, seconds: float | None) -> None:
        self.slept.append(seconds)
        self.time += (seconds or 0.0) + self.overslept


@pytest.fixture
def parts() -> Any:
    return MadeUpParts()


def slept(parts: Any, *, has_more: bool = False) -> float | None:
    supervisor = Supervisor(parts)
    supervisor._plan(has_more)
    supervisor._wait()
    seconds: float | None = parts.slept[-1]
    return seconds


def test_it_sleeps_until_something_happens(parts: Any) -> None:
    """If time alone gives nobody anything to do."""
    assert slept(parts) is None


@pytest.mark.parametrize("name", SLEEPERS)
def test_each_part_can_have_it_woken(parts: Any, name: str) -> None:
    """The earliest counts; what is due already is not slept on."""
    for each in SLEEPERS:
        getattr(parts, each).wake_at = 1030.0
    getattr(parts, name).wake_at = 1007.5
    assert slept(parts) == 7.5
    getattr(parts, name).wake_at = 3.0
    assert slept(parts) == 0.0


def test_it_looks_again_at_once_where_something_may_follow(parts: Any) -> None:
    """From a new phase."""
    parts.groups.wake_at = 1030.0
    assert slept(parts, has_more=True) == 0.0


def test_what_has_failed_is_tried_again(parts: Any) -> None:
    """In a moment, not at once, though it is due: no event would tell when it can be done."""
    parts.groups.wake_at = parts.time
    parts.guard.attempt("do what is due", lambda: [][0])
    assert slept(parts) == RETRY_SECONDS
    assert slept(parts) == 0.0


@pytest.mark.parametrize("part", ["logs", "notices"])
def test_what_found_no_room_is_tried_again(parts: Any, part: str) -> None:
    """Whoever reads the log, or systemd, does not tell when there is some."""
    (parts.cluster.logs if part == "logs" else parts.notices).is_waiting = True
    assert slept(parts) == RETRY_SECONDS
    parts.upkeep.wake_at = parts.time + RETRY_SECONDS / 2
    assert slept(parts) == RETRY_SECONDS / 2


def test_a_master_that_stood_still_blames_no_child(parts: Any) -> None:
    """It wakes much later than it wanted to: its children may have stood still, too."""
    parts.groups.wake_at = 1030.0
    parts.overslept = LATE_SECONDS
    slept(parts)
    assert parts.excused == []
    parts.groups.wake_at = parts.time + 30.0
    parts.overslept = LATE_SECONDS + 0.1
    slept(parts)
    assert parts.excused == [parts.time]


@pytest.mark.parametrize(("callers_wait", "order"), [(True, ["move", "act", "move"]), (False, ["act", "move"])])
def test_connections_go_on_before_a_process_starts(parts: Any, callers_wait: bool, order: list[str]) -> None:
    """If their callers wait: a fork takes milliseconds."""
    done: list[str] = []

    class Noted(Supervisor):
        def _act(self) -> None:
            done.append("act")

        def _move(self) -> None:
            done.append("move")

    parts.broker.callers_wait = callers_wait
    parts.guard = SimpleNamespace(attempt=lambda what, do, *arguments: what in SHOWN and do(*arguments))
    for name in ("parts", "reloading", "operations"):
        setattr(parts, name, SimpleNamespace(turn=None, note_progress=None, answer_what_is_done=None))
    for each in (parts.pushing, parts.asking, parts.saving, parts.control, parts.upkeep, parts.warden):
        each.turn = None
    parts.services.conversations = {}
    Noted(parts).turn()
    assert done == order
