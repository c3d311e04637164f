"""The contract's ``status``, made of what the master knows."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from rpccluster.address import parse_address
from rpccluster.ipc.scoreboard import LIMITS, Cell, CommonCell
from rpccluster.master.children.group import Group
from rpccluster.master.control.status import SLOTS_A_STEP, Status
from rpccluster.master.handover.transit import Figures
from rpccluster.master.phases import Phase
from rpccluster.master.pieces import ROWS_A_TURN, Pieces, Work
from rpccluster.master.resources.listeners import Listener
from rpccluster.protocol.codec import encoded, unpack
from rpccluster.system import Exit
from rpccluster.version import __version__

from ..made_up import RPC_KIND, booting, cluster, finished, group, ready, retiring

LEAST_TURNS = 5  # for 512 rows: some hundred in each, whatever the constant says


def status(*groups: Group, **values: Any) -> Callable[..., dict[str, Any]]:
    """The ``status`` of a cluster of these groups, to be called with pid and time; also the pid of its warden."""
    work = works(*groups, **values)
    return lambda pid, now, warden=0: unpack(encoded(finished(work(pid, lambda: now, warden))[0]))


def works(*groups: Group, **values: Any) -> Callable[..., Work[dict[str, Any]]]:
    """The same in steps."""
    broker: Any = SimpleNamespace(in_transit=0, figures=Figures(), uncovered=lambda worker: {})
    all_groups: Any = SimpleNamespace(all=groups, kinds={RPC_KIND.name: RPC_KIND})
    return Status(cluster(**values), groups[0], all_groups, RPC_KIND, broker).make


def test_status_has_the_contracts_form() -> None:
    """Key by key; more may be added, none renamed."""
    worker = ready(0, generation=3, booted_at=50.0, cpus=[1])
    numbers = {
        Cell.CONNECTIONS: 3,
        Cell.ACTIVE_CALLS: 1,
        Cell.CALLS: 10,
        Cell.ERRORS: 2,
        CommonCell.RSS_BYTES: 4096,
        Cell.ADOPTED: 4,
        Cell.HANDED_OVER: 5,
    }
    for cell, number in numbers.items():
        worker.row[cell] = number
    with socket.socket() as sock:
        listener = Listener(parse_address("127.0.0.1:0"), parse_address("127.0.0.1:4711"), sock)
        told = status(group(worker), generation=3, listeners=[listener])(99, 51.25, 98)
    assert told["master"] == {
        "pid": 99,
        "warden_pid": 98,
        "state": "running",
        "uptime_seconds": 50.25,
        "version": __version__,
        "generation": 3,
        "number_workers": 1,
        "settings": {"version": 1},
        "engine": "",  # until a worker is ready
        "leadership": None,  # without a section
        "in_transit": 0,
        "longest_seconds": 0.0,
        "dropped_replies": 0,
        "handed_over": 0,
        "listeners": ["tcp://127.0.0.1:4711"],
        "totals": {
            "calls": 10,
            "errors": 2,
            "accepted": 0,
            "accept_wakeups": 0,
            "adopted": 4,
            "handed_over": 5,
            "dropped_replies": 0,
            "stalls": 0,
            "limits": dict.fromkeys(LIMITS, 0),
        },
    }
    (shown,) = told["workers"]
    expected = {
        "slot": 0,
        "pid": worker.pid,
        "generation": 3,
        "state": "ready",
        "cpus": [1],
        "connections": 3,
        "active_calls": 1,
        "calls": 10,
        "errors": 2,
        "rss_bytes": 4096,
        "uptime_seconds": 1.25,
        "adopted": 4,
        "handed_over": 5,
    }
    assert {key: shown[key] for key in expected} == expected
    assert shown["uncovered"] == sum(shown["uncovered_why"].values())
    assert json.loads(json.dumps(told)) == told


def test_status_shows_workers_by_slot_the_older_first() -> None:
    """Whatever the order in which they were started; a reason only of those that retire."""
    old, new = retiring(0, retire_reason="reload"), ready(0, booted_at=9.0)
    one = ready(1, booted_at=1.0, retire_reason="never shown")
    told = status(group(new, one, old))(1, 10.0)["workers"]
    assert [(each["pid"], each["state"], each["retire_reason"]) for each in told] == [
        (old.pid, "retiring", "reload"),
        (new.pid, "ready", ""),
        (one.pid, "ready", ""),
    ]


@pytest.mark.parametrize("phase", list(Phase))
def test_every_phase_is_shown(phase: Phase) -> None:
    """As its value."""
    assert status(group(), phase=phase)(1, 2.0)["master"]["state"] == phase.value


# -- groups


def processes(made: Group, now: float = 100.0) -> list[dict[str, Any]]:
    (shown,) = status(made)(1, now)["groups"]
    assert json.loads(json.dumps(shown)) == shown
    found: list[dict[str, Any]] = shown["processes"]
    return found


def test_a_group_is_shown_with_all_its_processes() -> None:
    """The contract's form; a group is ready when as many as are wanted are."""
    with socket.socket() as sock:
        listener = Listener(parse_address("127.0.0.1:0"), parse_address("127.0.0.1:4711"), sock)
        worker = ready(0, generation=3, booted_at=50.0)
        worker.row[CommonCell.RSS_BYTES] = 4096
        (shown,) = status(group(worker, generation=3), listeners=[listener])(99, 51.25)["groups"]
    assert shown == {
        "name": "workers",
        "kind": "rpc",
        "description": "",
        "state": "ready",
        "wanted": 1,
        "reason": "",
        "listeners": ["tcp://127.0.0.1:4711"],
        "processes": [
            {
                "slot": 0,
                "pid": worker.pid,
                "state": "ready",
                "generation": 3,
                "uptime_seconds": 1.25,
                "rss_bytes": 4096,
                "settings_version": 0,
                "settings_state": "behind",
                "restarts": 0,
                "deaths": [],
                **RPC_KIND.status(worker, 51.25),
            }
        ],
    }


@pytest.mark.parametrize(
    ("workers", "state"),
    [
        ([ready(0), ready(1)], "ready"),
        ([retiring(0), ready(0), ready(1)], "ready"),
        ([ready(0), booting(1)], "booting"),
        ([ready(0), retiring(1)], "retiring"),
        ([ready(0)], "waiting"),
    ],
)
def test_a_group_is_in_the_state_of_the_first_that_is_not_ready(workers: list[Any], state: str) -> None:
    """Which may be a slot without a process."""
    (shown,) = status(group(*workers, number_workers=2))(1, 10.0)["groups"]
    assert shown["state"] == state


def test_a_slot_that_waits_says_why_and_how_long() -> None:
    """It has no process, but a past: how often it was restarted, and how the last ones ended."""
    made = group(number_workers=1)
    for at in (97.0, 98.0, 99.5):
        child = booting(0, booted_at=at - 0.5, last_words="no module named x")
        made.children.append(child)
        made.note_end(child, Exit(child.pid, 3, None), at)
    (shown,) = processes(made)
    assert (shown["pid"], shown["state"], shown["retry_in_seconds"]) == (None, "waiting", 0.5)
    assert (shown["reason"], shown["restarts"], len(shown["deaths"])) == ("no module named x", 3, 3)
    assert shown["deaths"][-1] == {
        "seconds_ago": 0.5,
        "ready_seconds": None,
        "exit_code": 3,
        "signal": None,
        "reason": "no module named x",
    }


def test_a_drained_group_is_stopped() -> None:
    """Its slots stay."""
    made = group(number_workers=2, phase=Phase.DRAINED)
    assert [(each["slot"], each["state"], each["reason"]) for each in processes(made)] == [
        (0, "stopped", "drained"),
        (1, "stopped", "drained"),
    ]


# -- in steps


def test_a_step_makes_the_rows_of_some_slots() -> None:
    """However many workers there are: so no turn of the master's loop is long. Nobody is left out, or told of twice."""
    workers = [ready(slot) for slot in range(512) if slot % 100]
    made, steps = finished(works(group(*workers, number_workers=512))(1, lambda: 10.0))
    assert len(steps) > 20 and max(steps) <= SLOTS_A_STEP and sum(steps) == 512
    told = unpack(encoded(made))
    assert [each["slot"] for each in told["workers"]] == [worker.slot for worker in workers]
    [shown] = told["groups"]
    assert [each["slot"] for each in shown["processes"]] == list(range(512))
    assert [each["slot"] for each in shown["processes"] if each["pid"] is None] == list(range(0, 512, 100))
    assert shown["state"] == "waiting"


def test_who_starts_or_ends_between_two_steps_is_told_of_once_or_not_at_all() -> None:
    """Each slot is as it is when its step comes."""
    made = group(*(ready(slot) for slot in range(60)))
    work = works(made)(1, lambda: 10.0)
    next(work)
    ended, late = made.children.pop(50), ready(61)
    made.children += [late, ready(0)]
    told = unpack(encoded(finished(work)[0]))
    slots = [slot for slot in range(60) if slot != ended.slot] + [late.slot]
    assert [each["slot"] for each in told["workers"]] == slots
    assert [each["slot"] for each in told["groups"][0]["processes"]] == [*range(60), late.slot]


def test_works_are_done_one_after_the_other_and_a_turn_has_few_rows() -> None:
    """Also of many small groups, and an answer that nobody awaits any more is not made."""
    answers: list[Any] = []
    pieces, told = Pieces(), Noted(answers, "long")
    pieces.begin(works(group(*map(ready, range(512))))(1, lambda: 10.0), told)
    pieces.begin(works(group(ready(0)))(1, lambda: 10.0), Noted(answers, "short"))
    gone = Noted(answers, "gone")
    pieces.begin(works(group(ready(0)))(1, lambda: 10.0), gone)
    gone.is_awaited = False
    turns = 0
    while pieces.wake_at < 0:
        pieces.turn()
        turns += 1
    assert LEAST_TURNS <= turns <= 512 // ROWS_A_TURN + 4
    assert [(name, error, len(made["workers"])) for name, error, made in answers] == [
        ("long", None, 512),
        ("short", None, 1),
    ]
    assert pieces.wake_at == float("inf")


def test_a_work_that_fails_is_told_and_the_next_one_is_done() -> None:
    """Else its caller would wait for ever."""
    answers: list[Any] = []
    pieces = Pieces()
    work = works(group(ready(0)))(1, lambda: 1 / 0)
    pieces.begin(work, Noted(answers, "faulty"))
    pieces.begin(works(group(ready(0)))(1, lambda: 10.0), Noted(answers, "good"))
    pieces.end()
    assert [(name, error) for name, error, _ in answers] == [
        ("faulty", "ZeroDivisionError: division by zero"),
        ("good", None),
    ]


class Noted:
    """An answer that is noted with a name."""

    def __init__(self, answers: list[Any], name: str) -> None:
        self.answers, self.name, self.is_awaited = answers, name, True

    def __call__(self, error: str | None, result: Any) -> None:
        self.answers.append((self.name, error, result))
