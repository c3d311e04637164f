"""What a call has begun is told apart from what the service began elsewhere, and is waited for."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator

import gevent
import gevent.event
import pytest

from rpccluster.worker.service.left_behind import LeftBehind

from ..rig import Gated, Rig, settle, until


class Leaving(Gated):
    def __init__(self) -> None:
        super().__init__()
        self.gate = gevent.event.Event()

    def leave(self) -> None:
        gevent.spawn(gevent.spawn, self.gate.wait)


@pytest.fixture
def left() -> Iterator[LeftBehind]:
    left = LeftBehind(gevent.get_hub())
    left.begin()
    yield left
    gevent.Greenlet.remove_spawn_callback(left._note)


def test_greenlets_of_calls_are_waited_for(left: LeftBehind) -> None:
    """Those that they spawn in turn, too; others are not."""
    rig = Rig(Leaving())
    other = gevent.spawn(gevent.sleep, 60)
    left.wait(time.monotonic() + 60)
    assert not other.ready()
    rig.connect().call("leave")
    waits = gevent.spawn(left.wait, time.monotonic() + 60)
    until(lambda: waits.gr_frame is not None)
    settle()
    assert not waits.ready()
    rig.service.gate.set()
    waits.join(20)
    assert waits.ready()
    other.kill()
    rig.close()


def test_not_past_its_time(left: LeftBehind) -> None:
    """The worker ends."""
    rig = Rig(Leaving())
    rig.connect().call("leave")
    left.wait(time.monotonic() + 0.05)
    assert not rig.service.gate.is_set()
    rig.service.gate.set()
    rig.close()


def test_jobs_of_native_threads_are_waited_for(left: LeftBehind) -> None:
    """But for those that were there before the first call."""
    pool = gevent.get_hub().threadpool
    done: list[float] = []

    def work() -> None:
        time.sleep(0.1)
        done.append(time.monotonic())

    for _ in range(3):
        pool.spawn(work)
    left.wait(time.monotonic() + 60)
    assert len(done) == 3
    jobs = [pool.spawn(time.sleep, 0.3)]
    left.begin()
    left.wait(time.monotonic() + 60)
    assert not jobs[0].ready()
    jobs[0].get()


def test_a_pool_of_native_threads_from_before_the_first_call_is_known(left: LeftBehind) -> None:
    """The worker freezes what it was born with, and what is frozen cannot be found any more."""
    pool = gevent.get_hub().threadpool
    pool.apply(time.monotonic)
    left.begin()
    gc.freeze()
    try:
        job = pool.spawn(time.sleep, 0.2)
        left.wait(time.monotonic() + 60)
        assert job.ready()
    finally:
        gc.unfreeze()


def test_the_last_hook_has_its_share_of_the_time(left: LeftBehind) -> None:
    """What does not end is waited for only half of it before ``worker_stopping``."""
    rig = Rig(Leaving())
    rig.connect().call("leave")
    until_then = time.monotonic() + 0.5
    left.wait(until_then)
    assert time.monotonic() < until_then
    rig.service.gate.set()
