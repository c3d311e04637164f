"""Rates over several workers, by a made-up clock: what passes is the rate, wherever the calls come."""

from __future__ import annotations

import random

import pytest

from rpccluster.ipc.scoreboard import CommonCell, RowState, Scoreboard
from rpccluster.worker.access import bucket as bucket_module
from rpccluster.worker.access.rates import Rates

SECOND = 1_000_000_000


class World:
    """Workers of one scoreboard, whose half seconds begin at different times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, workers: int, rate: float) -> None:
        self.now = 10 * SECOND
        self.rate = rate
        monkeypatch.setattr(bucket_module, "monotonic_ns", lambda: self.now)
        self.scoreboard = Scoreboard(64)
        self.workers: list[Rates] = []
        self.level_at: list[int] = []
        self.chance = random.Random(5)
        for _ in range(workers):
            self.add()

    def add(self) -> None:
        row = self.scoreboard.take_row()
        assert row is not None
        self.scoreboard.row(row)[CommonCell.STATE] = RowState.ACCEPTING
        rates = Rates(self.scoreboard, row, clock=lambda: self.now)
        rates.set_rates([self.rate])
        self.workers.append(rates)
        self.level_at.append(self.now + self.chance.randrange(SECOND // 2))

    def step(self, milliseconds: int, calls: list[int]) -> int:
        """Let time pass, in which each worker gets so many calls a millisecond. Returns how many pass."""
        found = 0
        for _ in range(milliseconds):
            self.now += SECOND // 1000
            for place, rates in enumerate(self.workers):
                if self.now >= self.level_at[place]:
                    self.level_at[place] += SECOND // 2
                    rates.level()
                found += sum(rates.buckets[0].take() for _ in range(calls[place]))
        return found


@pytest.mark.parametrize("calls", [[1, 1, 1, 1], [2, 0, 0, 0], [1, 0, 3, 0]], ids=str)
@pytest.mark.parametrize("idle_ms", [0, 300, 5000])
def test_ten_seconds_let_ten_times_the_rate_through(
    monkeypatch: pytest.MonkeyPatch, calls: list[int], idle_ms: int
) -> None:
    """Evenly spread or all at one worker, at once or after a while."""
    world = World(monkeypatch, 4, 100.0)
    world.step(idle_ms, [0] * 4)
    assert 950 <= world.step(10_000, calls) <= 1050


def test_it_is_the_rate_when_the_connections_move(monkeypatch: pytest.MonkeyPatch) -> None:
    """All workers are replaced twice while it is asked for too much."""
    world = World(monkeypatch, 4, 100.0)
    found = world.step(3000, [1, 1, 1, 1])
    for _ in range(2):
        for old in range(len(world.workers) - 4, len(world.workers)):
            world.add()
            world.workers[old].level()
            world.level_at[old] = 1 << 62
            world.scoreboard.free_row(old)
        gone = len(world.workers) - 4
        found += world.step(3500, [0] * gone + [1, 1, 1, 1])
    assert 950 <= found <= 1050


@pytest.mark.parametrize("rate", [0.5, 1.0, 3.0])
def test_a_small_rate_lets_whole_calls_through(monkeypatch: pytest.MonkeyPatch, rate: float) -> None:
    """Though each of four workers has only a part of one: one call at a time, at any of them."""
    world = World(monkeypatch, 4, rate)
    world.step(5000, [0] * 4)
    found = world.step(60_000, [1, 0, 0, 0])
    assert 60 * rate * 0.85 - 1 <= found <= 60 * rate * 1.1 + 4


def test_what_an_idle_second_has_left_may_come_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A burst of one second, and then nothing for a second."""
    world = World(monkeypatch, 1, 100.0)
    world.step(3000, [0])
    assert world.step(1, [500]) == 100
    assert world.step(400, [5]) <= 1


def test_steady_calls_below_the_rate_all_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine tenths of it, at one worker of four, once its share is known."""
    world = World(monkeypatch, 4, 100.0)
    refused = 0
    for second in range(20):
        for _ in range(90):
            taken = world.step(11, [0] * 4) + world.workers[0].buckets[0].take()
            refused += 0 if taken or second < 1 else 1
    assert refused <= 18


def test_a_worker_that_comes_takes_over_a_debt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of four lets its share of a burst pass before it hears of the others; their successors make up for it."""
    world = World(monkeypatch, 4, 100.0)
    world.step(3000, [0] * 4)
    found = world.step(600, [1, 1, 1, 1])
    for old in range(4):
        world.add()
        world.workers[old].level()
        world.level_at[old] = 1 << 62
        world.scoreboard.free_row(old)
    found += world.step(4000, [0] * 4 + [1, 1, 1, 1])
    assert 400 <= found <= 500
