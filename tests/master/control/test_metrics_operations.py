"""What the control socket tells of methods, from counters in memory."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest

from rpccluster.ipc.fdpass import memory_file
from rpccluster.master.control.metrics_operations import MetricsOperations
from rpccluster.master.counts import Counts
from rpccluster.master.pieces import Pieces
from rpccluster.metrics.layout import BOUNDS_SECONDS, BUCKETS, CELLS_AT, OK, ROW_BYTES, Block, Outcome
from rpccluster.metrics.row import Row
from rpccluster.system import is_byte_locked, reach

LEAST_TURNS = 5  # for 512 rows: some hundred in each, whatever the constant says


def answers(counts: Counts, **sections: Any) -> list[tuple[str | None, Any]]:
    """What ``metrics.methods`` answers where the configuration has ``sections``."""
    cluster: Any = SimpleNamespace(counts=counts, configuration=SimpleNamespace(others=sections))
    told: list[tuple[str | None, Any]] = []
    pieces, answer = Pieces(), Heard(told)
    MetricsOperations(cluster, pieces).readings()["metrics.methods"]([], answer)  # type: ignore[arg-type]
    pieces.end()
    return told


class Heard:
    """An answer that is noted."""

    is_awaited = True

    def __init__(self, told: list[tuple[str | None, Any]]) -> None:
        self.told = told

    def __call__(self, error: str | None, result: Any) -> None:
        self.told.append((error, result))


def test_what_was_counted_of_each_method() -> None:
    """Calls that have ended, failed ones, and all that ran by their times."""
    counts = Counts(memory_file(name="metrics"))
    cells = Row(counts.descriptor).block(Block.METHOD, "price")
    cells[OK + 1 + 2] = 5
    cells[Outcome.ERROR] = 1
    [(error, told)] = answers(counts, metrics=object())
    assert error is None and list(told["bounds"]) == list(BOUNDS_SECONDS)
    assert told["methods"]["price"] == [6, 1, [0, 0, 5, *[0] * (BUCKETS - 3)]]
    os.close(counts.descriptor)


def test_nobody_counts_without_a_section() -> None:
    """The error says which it needs."""
    [(error, told)] = answers(Counts(-1))
    assert (error, told) == ("RuntimeError: rates and times need a section [metrics] or [web]", None)


def test_reading_ends_no_lock_of_a_process_that_counts() -> None:
    """Not either when the file has grown: a row whose lock is gone would be taken by another process."""
    descriptor = memory_file(name="metrics")
    counts = Counts(descriptor)  # its row is locked by this process
    cluster: Any = SimpleNamespace(counts=counts, configuration=SimpleNamespace(others={"web": object()}))
    pieces = Pieces()
    operations = MetricsOperations(cluster, pieces)
    for rows in range(1, 5):
        reach(descriptor, rows * ROW_BYTES)
        operations.readings()["metrics.methods"]([], Heard([]))  # type: ignore[arg-type]
        pieces.end()
    child = os.fork()
    if not child:
        os._exit(0 if is_byte_locked(descriptor, 0) else 1)
    assert os.waitpid(child, 0)[1] == 0
    os.close(descriptor)


@pytest.mark.parametrize("params", [[1], [None, 2]])
def test_it_takes_no_params(params: list[Any]) -> None:
    """As the other methods that only look."""
    cluster: Any = SimpleNamespace(counts=Counts(-1), configuration=SimpleNamespace(others={}))
    with pytest.raises(TypeError):
        MetricsOperations(cluster, Pieces()).readings()["metrics.methods"](params, None)  # type: ignore[arg-type]


def test_rows_are_read_over_several_turns() -> None:
    """So that the loop is not held up by 512 of them; those that end meanwhile are counted, as their rows stay."""
    counts = Counts(memory_file(name="metrics"))
    Row(counts.descriptor).block(Block.METHOD, "price")[OK + 1] = 5
    row = os.pread(counts.descriptor, ROW_BYTES, 0)
    for place in range(1, 512):
        reach(counts.descriptor, (place + 1) * ROW_BYTES)
        os.pwrite(counts.descriptor, row[:4096], place * ROW_BYTES)
        os.pwrite(counts.descriptor, row[CELLS_AT : CELLS_AT + 4096], place * ROW_BYTES + CELLS_AT)
    cluster: Any = SimpleNamespace(counts=counts, configuration=SimpleNamespace(others={"web": object()}))
    pieces, told, turns = Pieces(), list[Any](), 0
    MetricsOperations(cluster, pieces).readings()["metrics.methods"]([], Heard(told))  # type: ignore[arg-type]
    while not told:
        pieces.turn()
        turns += 1
    assert turns >= LEAST_TURNS
    assert told[0][1]["methods"]["price"][0] == 5 * 512
    os.close(counts.descriptor)
