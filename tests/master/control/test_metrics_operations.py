"""What the control socket tells of methods, from counters in memory."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest

from rpccluster.ipc.fdpass import memory_file
from rpccluster.master.control.metrics_operations import MetricsOperations
from rpccluster.master.counts import Counts
from rpccluster.metrics.layout import BOUNDS_SECONDS, BUCKETS, OK, ROW_BYTES, Block, Outcome
from rpccluster.metrics.row import Row
from rpccluster.system import is_byte_locked, reach


def answers(counts: Counts, **sections: Any) -> list[tuple[str | None, Any]]:
    """What ``metrics.methods`` answers where the configuration has ``sections``."""
    cluster: Any = SimpleNamespace(counts=counts, configuration=SimpleNamespace(others=sections))
    told: list[tuple[str | None, Any]] = []
    answer: Any = lambda error, result: told.append((error, result))  # noqa: E731
    MetricsOperations(cluster).readings()["metrics.methods"]([], answer)
    return told


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
    operations = MetricsOperations(cluster)
    for rows in range(1, 5):
        reach(descriptor, rows * ROW_BYTES)
        operations.readings()["metrics.methods"]([], lambda error, result: None)  # type: ignore[arg-type]
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
        MetricsOperations(cluster).readings()["metrics.methods"](params, None)  # type: ignore[arg-type]
