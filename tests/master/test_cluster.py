"""What the master knows of its cluster, and the contract's ``status`` made of it."""

from __future__ import annotations

import json
import socket

import pytest

from rpccluster.address import parse_address
from rpccluster.errors import IllegalTransition
from rpccluster.ipc.scoreboard import LIMITS, Cell, CommonCell
from rpccluster.log import LogFiles
from rpccluster.master.children.deaths import End
from rpccluster.master.cluster import Staged
from rpccluster.master.phases import Event, Phase
from rpccluster.master.resources.listeners import Listener
from rpccluster.system import Exit
from rpccluster.version import __version__

from .made_up import booting, cluster, configuration, ready, retiring


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
        told = cluster(worker, generation=3, listeners=[listener]).status(99, 51.25)
    assert told["master"] == {
        "pid": 99,
        "state": "running",
        "uptime_seconds": 50.25,
        "version": __version__,
        "generation": 3,
        "number_workers": 1,
        "listeners": ["tcp://127.0.0.1:4711"],
        "totals": {
            "calls": 10,
            "errors": 2,
            "accepted": 0,
            "accept_wakeups": 0,
            "adopted": 4,
            "handed_over": 5,
            "dropped_replies": 0,
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
    assert json.loads(json.dumps(told)) == told


def test_status_shows_workers_by_slot_the_older_first() -> None:
    """Whatever the order in which they were started; a reason only of those that retire."""
    old, new = retiring(0, retire_reason="reload"), ready(0, booted_at=9.0)
    one = ready(1, booted_at=1.0, retire_reason="never shown")
    told = cluster(new, one, old).status(1, 10.0)["workers"]
    assert [(each["pid"], each["state"], each["retire_reason"]) for each in told] == [
        (old.pid, "retiring", "reload"),
        (new.pid, "ready", ""),
        (one.pid, "ready", ""),
    ]


@pytest.mark.parametrize("phase", list(Phase))
def test_every_phase_is_shown(phase: Phase) -> None:
    """As its value."""
    assert cluster(phase=phase).status(1, 2.0)["master"]["state"] == phase.value


def test_an_event_that_cannot_happen_leaves_the_phase_as_it_was() -> None:
    """What can changes it, and says whether it has."""
    made = cluster()
    with pytest.raises(IllegalTransition):
        made.note(Event.BOOTED)
    assert made.phase is Phase.RUNNING
    assert not made.note(Event.WANTED)
    assert made.note(Event.DRAIN)
    assert made.phase is Phase.DRAINED


def test_settled_means_that_nobody_comes_or_goes() -> None:
    """Every slot wanted is served, and no other has a worker left; a predecessor may still finish in its own."""
    assert cluster(ready(0), ready(1)).is_settled()
    assert cluster(ready(0), retiring(0), number_workers=1).is_settled()
    assert not cluster(ready(0), booting(1)).is_settled()
    assert not cluster(ready(0), retiring(1), number_workers=1).is_settled()
    assert not cluster(ready(0), number_workers=2).is_settled()
    assert not cluster(ready(0), ready(1), number_workers=1).is_settled()
    assert not cluster(ready(0), retiring(1), number_workers=1).is_settled()


def test_rolled_means_that_nobody_older_fills_a_slot() -> None:
    """Those on their way out do not count."""
    assert cluster(ready(0, 2), retiring(0, 1), ready(1, 1, kill_reason="x"), generation=2).has_rolled()
    assert not cluster(ready(0, 2), ready(1, 1), generation=2).has_rolled()


def test_the_policy_sees_what_the_cluster_knows() -> None:
    """Field by field, with copies of lists that change."""
    staged = Staged(configuration(), 5, [], LogFiles("", ""))
    workers = [ready(0)]
    made = cluster(*workers, generation=4, number_workers=7, staged=staged, is_rolling=True, reloaded_at=3.0)
    made.spawn_at, made.failure = 9.0, "why"
    made.restarts.note_end(3, End(Exit(1, 0, None), 40.0, None, 40.5))
    seen = made.situation()
    assert (seen.phase, seen.workers, seen.number_workers) == (Phase.RUNNING, workers, 7)
    assert (seen.generation, seen.staged_generation) == (4, 5)
    assert (seen.is_rolling, seen.reloaded_at, seen.spawn_at, seen.start_at) == (True, 3.0, 9.0, {3: 41.0})
    assert seen.has_failed
    assert seen.workers is not made.workers
    assert cluster().situation().staged_generation is None
