"""RPC workers as their master sees them: what they say, what gives them more time, where they hang, what they count."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest

from rpccluster.ipc.messages import BootFailed, Closed, Ready, Retire, WantsToRetire
from rpccluster.ipc.scoreboard import Cell, CommonCell
from rpccluster.master.children.child import MOVING_SECONDS, Birth, Overdue
from rpccluster.master.kinds.kind import Booted, Gone, Passed
from rpccluster.master.kinds.rpc import RPC
from rpccluster.master.kinds.stalls import Stalls
from rpccluster.master.phases import Phase
from rpccluster.rate_limit import LogLimiter

from ..made_up import RPC_KIND, booting, edition, group, ready, retiring

NOW = 100.0


def copy_of_a_descriptor() -> int:
    return os.open(os.devnull, os.O_RDONLY)


def is_open(descriptor: int) -> bool:
    return os.path.exists(f"/proc/self/fd/{descriptor}")


# -- what they say


def test_ready_tells_the_methods() -> None:
    """By their numbers a worker that hangs is asked for."""
    worker = booting()
    assert RPC_KIND.hear(worker, Ready(["sum"]), [], NOW) == Booted(worker)
    assert worker.methods == ["sum"]


@pytest.mark.parametrize("stage", ["service", "worker"])
def test_a_failed_boot_has_last_words(stage: str) -> None:
    """Whose fault it was decides on the exit code of a start."""
    worker = booting()
    assert RPC_KIND.hear(worker, BootFailed(stage, "no module"), [], NOW) is None
    assert (worker.last_words, worker.is_service_at_fault) == ("no module", stage == "service")


def test_a_wish_to_retire_makes_it_overdue() -> None:
    """The policy finds it a successor first."""
    worker = ready()
    assert RPC_KIND.hear(worker, WantsToRetire("max_requests"), [], NOW) is None
    assert worker.overdue == Overdue(NOW, "max_requests")


def test_what_concerns_connections_is_passed_on_with_its_descriptors() -> None:
    """They are the receiver's; those of all else are closed, whatever they were sent for."""
    worker, kept, dropped = ready(), copy_of_a_descriptor(), copy_of_a_descriptor()
    assert RPC_KIND.hear(worker, Closed(7), [kept], NOW) == Passed(worker, Closed(7), [kept])
    RPC_KIND.hear(worker, WantsToRetire("x"), [dropped], NOW)
    assert (is_open(kept), is_open(dropped)) == (True, False)
    os.close(kept)


def test_an_end_is_told_and_counted() -> None:
    """Its row is about to be cleared."""
    kind, worker = RPC(), ready()
    worker.row[Cell.CALLS] = 3
    assert kind.note_end(worker) == Gone(worker)
    assert kind.totals.status([])["calls"] == 3


# -- what they are born with


def test_it_is_born_with_the_listeners_of_its_edition() -> None:
    """And a channel for connections, whose other end the master keeps both of: what is not read can be read back."""
    born_with = edition(2)
    with os.fdopen(copy_of_a_descriptor()) as file:
        born_with.listeners = [SimpleNamespace(socket=file, wanted=None)]
        channel: Any = SimpleNamespace(close=lambda: None)
        worker, part = RPC_KIND.equip(Birth(1, 7, born_with, 0, booting().row, channel, [0], NOW))
        assert (worker.slot, worker.serial, worker.generation) == (1, 7, 2)
        assert (part.connections, part.listeners) == (worker.far_end, [file])
        assert worker.sources() == [channel, worker.connections, part.stall_timer]
        worker.close()
    assert (worker.connections.fileno(), worker.far_end.fileno()) == (-1, -1)


def test_it_retires_by_a_message() -> None:
    """Which says whether connections end, too."""
    assert ready().farewell(Retire(30.0, True)) == Retire(30.0, True)


# -- the time they have


@pytest.mark.parametrize(("phase", "kill_at"), [(Phase.RUNNING, NOW + 33.0), (Phase.STOPPING, 110.0)])
def test_one_that_cannot_give_its_connections_away_has_time(phase: Phase, kill_at: float) -> None:
    """As long as it has some, unless they are to end."""
    worker = retiring(kill_at=110.0)
    worker.row[Cell.CONNECTIONS] = 1
    RPC_KIND.look(group(worker, phase=phase, graceful_timeout=30.0), worker, NOW)
    assert worker.kill_at == kill_at


def test_connections_move_for_a_while_after_the_retirement() -> None:
    """Of a worker that has some; those that stay longer than that are not on their way."""
    worker = ready()
    worker.row[Cell.CONNECTIONS] = 1
    assert not worker.is_moving(10.0)
    worker.note_retirement("max_requests", 10.0, 40.0)
    assert worker.is_moving(10.0)
    assert not worker.is_moving(10.0 + MOVING_SECONDS)
    worker.row[Cell.CONNECTIONS] = 0
    assert not worker.is_moving(10.0)


def test_a_worker_that_must_serve_on_is_not_killed_for_it() -> None:
    """As long as it has connections that nobody can take its deadline moves, never backwards; then it stands."""
    worker = retiring(kill_at=10.0)
    worker.serve_on(30.0)
    assert worker.kill_at == 10.0
    worker.row[Cell.CONNECTIONS] = 1
    worker.serve_on(30.0)
    worker.serve_on(20.0)
    assert worker.kill_at == 30.0
    worker.row[Cell.CONNECTIONS] = 0
    worker.serve_on(40.0)
    assert worker.kill_at == 30.0
    serving = ready()
    serving.row[Cell.CONNECTIONS] = 1
    serving.serve_on(30.0)
    assert serving.kill_at is None


def test_a_hung_worker_tells_its_method() -> None:
    """As it said itself when asked, else the one it began last, else what can be said."""
    worker = ready(methods=["sum", "spin"])
    assert worker.where_it_hangs() == "no method"
    worker.row[CommonCell.RUNNING] = 1
    assert worker.where_it_hangs() == "sum"
    worker.row[CommonCell.HUNG_IN] = 2
    assert worker.where_it_hangs() == "spin"
    worker.row[CommonCell.HUNG_IN] = 99
    assert worker.where_it_hangs() == "no method"
    assert booting().where_it_hangs() == "its boot"


@pytest.mark.parametrize("has_passed", [False, True])
def test_a_worker_that_ends_is_not_said_to_stand_still(caplog: pytest.LogCaptureFixture, has_passed: bool) -> None:
    """All its sources are read once more then; the timer among them tells only if its moment has come."""
    worker = ready()
    timer: Any = SimpleNamespace(drain=lambda: has_passed)
    worker.stalls = Stalls(timer, "worker", LogLimiter())
    worker.read(timer)
    assert any("stands still" in line for line in caplog.messages) == has_passed
