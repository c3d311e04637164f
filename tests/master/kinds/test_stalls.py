"""The master tells of a worker of which no thread can run: whose timer has passed."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from multiprocessing.connection import wait

import pytest

from rpccluster.ipc.scoreboard import CommonCell
from rpccluster.master.kinds.rpc import RPCWorker
from rpccluster.master.kinds.stalls import Stalls
from rpccluster.rate_limit import LogLimiter
from rpccluster.system.clock import Timer

from ..made_up import ready, retiring


class Clock:
    """Monotonic seconds that the test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def passed(timer: Timer) -> bool:
    """Whether the timer's descriptor is readable."""
    return bool(wait([timer], 0))


def in_method(worker: RPCWorker, name: str) -> RPCWorker:
    """The worker, which has begun that method last."""
    worker.methods = ["other", name]
    worker.row[CommonCell.RUNNING] = 2
    return worker


def let_pass(timer: Timer) -> None:
    """Have its moment pass now."""
    timer.set(time.monotonic_ns())
    wait([timer])


@pytest.fixture
def timer() -> Iterator[Timer]:
    """A timer that has passed."""
    timer = Timer()
    let_pass(timer)
    yield timer
    timer.close()


def test_it_is_told_with_the_method(timer: Timer, caplog: pytest.LogCaptureFixture) -> None:
    """And is not readable again until the worker has set it anew."""
    worker = in_method(ready(), "power")
    Stalls(timer, "worker", LogLimiter()).read(worker)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith(f"Worker (pid: {worker.pid}, slot: 0) stands still in power: ")
    assert not passed(timer)


def test_one_line_a_method_in_its_time(timer: Timer, caplog: pytest.LogCaptureFixture) -> None:
    """All workers share the limit; the next line says how many there were."""
    clock = Clock()
    limiter = LogLimiter(60.0, clock=clock)
    for name in ("power", "power", "other"):
        let_pass(timer)
        Stalls(timer, "worker", limiter).read(in_method(ready(), name))
    assert len(caplog.records) == 2
    clock.now += 60.0
    let_pass(timer)
    Stalls(timer, "worker", limiter).read(in_method(ready(), "power"))
    assert caplog.records[-1].getMessage().endswith("(and 1 more like this since the last such line)")


def test_one_that_retires_is_not_told(timer: Timer, caplog: pytest.LogCaptureFixture) -> None:
    """Its watch may have ended before it has."""
    Stalls(timer, "worker", LogLimiter()).read(retiring())
    assert not caplog.records
    assert not passed(timer)


def test_one_whose_timer_has_not_passed_is_not_told(timer: Timer, caplog: pytest.LogCaptureFixture) -> None:
    """All that is watched for a worker is read once more when it has ended."""
    timer.drain()
    Stalls(timer, "worker", LogLimiter()).read(ready())
    assert not caplog.records
