"""Ten million items in the file cost a put, a get and an ack what ten thousand do, and leave it again.

RPCCLUSTER_FULL_SCALE=1 makes it that many, and compares; else it is a small file, and only all that happens is tried.
"""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path
from typing import Any

from rpccluster.queues.engine import Ack, Get, Purge, Put, Rules, Stats
from rpccluster.queues.sqlite import SQLiteEngine

IS_FULL = bool(os.environ.get("RPCCLUSTER_FULL_SCALE"))
FEW, MANY = (10_000, 10_000_000) if IS_FULL else (1000, 20_000)
ROUNDS = 200 if IS_FULL else 5
SIZE = 100  # items of a batch
MOST = 1.3  # times
CONSUMER = b"c" * 16


class File:
    """An engine with a file of so many items."""

    def __init__(self, folder: Path, number: int) -> None:
        folder.mkdir()
        self.path = folder / "queues.db"
        self.engine = SQLiteEngine(str(self.path), "os")
        self.engine.configure({"jobs": Rules()}, None)
        self.engine.open()
        for _ in range(number // 1000):
            self.run(Put("jobs", [b"x" * 100] * 1000))
        self.seconds: dict[str, list[float]] = {"put": [], "get": [], "ack": []}

    def run(self, verb: Any) -> Any:
        """Run one verb."""
        [answer] = self.engine.run([verb]).answers
        return answer

    def timed(self, what: str, verb: Any) -> Any:
        """Run one verb. Its thread's seconds are kept."""
        before = time.thread_time()
        answer = self.run(verb)
        self.seconds[what].append(time.thread_time() - before)
        return answer

    def turn(self) -> None:
        """Put, get and ack a batch."""
        self.timed("put", Put("jobs", [b"x" * 100] * SIZE))
        taken = self.timed("get", Get("jobs", CONSUMER, SIZE))
        assert len(taken) == SIZE
        assert self.timed("ack", Ack("jobs", [item[:2] for item in taken])) is True

    def cost(self, what: str) -> float:
        """Microseconds of an item."""
        return statistics.median(self.seconds[what]) / SIZE * 1e6

    @property
    def size(self) -> int:
        """The bytes of the file."""
        return self.path.stat().st_size

    def shrink(self) -> int:
        """Look after the file until nothing is left to do. Returns its bytes then."""
        while self.engine.keep_up():
            if self.engine._upkeep._is_copying:
                time.sleep(0.001)
        return self.size


def test_many_items_cost_what_few_do(tmp_path: Path) -> None:
    """By the time of the thread that does it, in turns; and the file is small again when they were taken or purged."""
    few, many = File(tmp_path / "few", FEW), File(tmp_path / "many", MANY)
    for _ in range(ROUNDS):
        few.turn()
        many.turn()
    costs = {what: (few.cost(what), many.cost(what)) for what in few.seconds}
    print({what: f"{one:.2f} and {other:.2f} µs, {other / one:.2f} times" for what, (one, other) in costs.items()})
    if IS_FULL:
        assert all(other <= MOST * one for one, other in costs.values()), costs
    for _ in range(MANY // 10 // 1000):
        taken = many.run(Get("jobs", CONSUMER, 1000))
        assert many.run(Ack("jobs", [item[:2] for item in taken])) is True
    assert many.run(Stats("jobs"))["ready"] == MANY - MANY // 10
    before, shrunk = many.size, many.shrink()
    assert many.run(Purge("jobs")) == MANY - MANY // 10
    after = many.shrink()
    print(f"{before >> 20} MiB of the file, {shrunk >> 20} without a tenth of the items, {after >> 20} without any")
    assert after < 8 << 20  # the last acks, and free pages that stay
    assert after < shrunk / 2
    for file in (few, many):
        file.engine.close()
