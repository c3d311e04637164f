"""Freed memory goes back to the kernel when it is not wanted, and not while it is."""

from __future__ import annotations

from rpccluster.worker.process.freed_memory import QUIET_SECONDS, WORTH_BYTES, FreedMemory

START = 50 << 20
BEAT_SECONDS = 0.5


class Beats:
    """Asks twice a second, as a worker does."""

    def __init__(self) -> None:
        self.freed = FreedMemory()
        self.now = 1000.0

    def after(self, seconds: float, resident: int, *, is_busy: bool = False) -> list[float]:
        """When, within ``seconds``, it was due."""
        began, due = self.now, []
        while self.now < began + seconds:
            self.now += BEAT_SECONDS
            if self.freed.is_due(resident, is_busy, self.now):
                due.append(self.now - began)
                self.freed.settle(resident)
        return due


def test_a_worker_that_stays_as_it_is_gives_nothing_back() -> None:
    """Nor one that has grown a little."""
    beats = Beats()
    assert beats.after(60, START) == []
    assert beats.after(60, START + WORTH_BYTES - 1) == []


def test_what_was_large_is_given_back_once_it_is_over() -> None:
    """After the quiet time; then nothing more, whatever is left of it."""
    beats = Beats()
    beats.after(10, START)
    assert beats.after(60, 2 * START, is_busy=True) == []
    assert beats.after(60, 2 * START) == [QUIET_SECONDS]
    assert beats.after(60, 2 * START) == []


def test_what_falls_by_itself_may_leave_something_behind() -> None:
    """It was given back while it was in use, so once more when it is free."""
    beats = Beats()
    beats.after(10, START)
    assert beats.after(10, 4 * START) == [BEAT_SECONDS]
    assert beats.after(60, 2 * START) == [BEAT_SECONDS]


def test_what_was_large_is_given_back_though_it_began_to_arrive_before() -> None:
    """While it arrived, memory was given back: what was resident then is not what the worker settles at."""
    beats = Beats()
    beats.after(10, START)
    assert beats.after(BEAT_SECONDS, 2 * START) == [BEAT_SECONDS]
    assert beats.after(BEAT_SECONDS, 3 * START, is_busy=True) == []
    assert beats.after(60, 3 * START) == [QUIET_SECONDS]


def test_what_is_freed_just_after_something_was_given_back() -> None:
    """Before the next beat: that it fell is seen all the same."""
    beats = Beats()
    beats.after(10, START)
    assert beats.after(BEAT_SECONDS, 4 * START) == [BEAT_SECONDS]
    assert beats.after(60, START + 2 * WORTH_BYTES) == [QUIET_SECONDS]


def test_a_worker_that_grows_all_the_time() -> None:
    """Is asked now and then, not with every beat."""
    beats = Beats()
    times = [at for step in range(60) for at in beats.after(1, START + step * WORTH_BYTES)]
    assert len(times) <= 60 / QUIET_SECONDS
