"""The file of the counters: rows with one writer each, read by another process, whatever ends the writers."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from multiprocessing import get_context
from typing import Any, Callable

import pytest

from rpccluster.ipc.fdpass import memory_file
from rpccluster.metrics.families import Family, families
from rpccluster.metrics.layout import (
    BUCKETS,
    FAILED,
    MOST_BLOCKS,
    NAME_BYTES,
    OK,
    ROW_BYTES,
    Block,
    Outcome,
    OwnCell,
    bucket_of,
)
from rpccluster.metrics.row import Row
from rpccluster.metrics.totals import Reader, Totals

_FORK = get_context("fork")


@pytest.fixture
def file() -> Iterator[int]:
    """An empty file in memory."""
    descriptor = memory_file(name="metrics")
    yield descriptor
    os.close(descriptor)


class Counting:
    """A process that takes a row, does something with it, and lives until it is ended."""

    def __init__(self, file: int, do: Callable[[Row], object]) -> None:
        self._here, there = _FORK.Pipe()
        self._process = _FORK.Process(target=_count, args=(file, do, there), daemon=True)
        self._process.start()
        self.place = self._here.recv()

    def kill(self) -> None:
        """Kill it, and wait until it is gone."""
        self._process.kill()
        self._process.join()


def _count(file: int, do: Callable[[Row], object], there: Any) -> None:
    row = Row(file)
    do(row)
    there.send(row.place)
    while True:
        signal.pause()


def count_ok(name: str, calls: int) -> Callable[[Row], object]:
    """Make what counts ``calls`` successful calls of ``name``, each of 30 µs."""

    def do(row: Row) -> None:
        cells = row.block(Block.METHOD, name)
        cells[OK + 1 + bucket_of(30_000)] += calls
        cells[OK] += calls * 30_000

    return do


def ok_calls(file: int) -> dict[str, int]:
    """Return the successful calls by method."""
    return {name: calls.outcomes["ok"] for name, calls in Reader(file).read().methods().items()}


def test_an_empty_file_has_no_blocks(file: int) -> None:
    assert Reader(file).read() == Totals()


def test_rows_are_added_up_and_outlive_their_processes(file: int) -> None:
    first, second = Counting(file, count_ok("add", 5)), Counting(file, count_ok("add", 7))
    assert (first.place, second.place) == (0, 1)
    assert ok_calls(file) == {"add": 12, "other": 0}
    first.kill()
    assert ok_calls(file) == {"add": 12, "other": 0}
    third = Counting(file, count_ok("sub", 1))
    assert third.place == 0, "the next process takes the row of the dead one"
    assert ok_calls(file) == {"add": 12, "other": 0, "sub": 1}
    fourth = Counting(file, count_ok("add", 1))
    assert fourth.place == 2
    assert ok_calls(file) == {"add": 13, "other": 0, "sub": 1}
    for each in (second, third, fourth):
        each.kill()
    assert ok_calls(file) == {"add": 13, "other": 0, "sub": 1}


def test_gauges_end_with_their_process(file: int) -> None:
    def show(row: Row) -> None:
        row.own[OwnCell.CONNECTIONS] = 3
        row.block(Block.SETTINGS, "workers")[0] = 9

    process, reader = Counting(file, show), Reader(file)
    assert (reader.read().connections, reader.read().settings_versions) == (3, {"workers": 9})
    process.kill()
    assert (reader.read().connections, reader.read().settings_versions) == (0, {})
    successor = Counting(file, lambda row: None)
    assert (successor.place, reader.read().connections) == (process.place, 0)
    successor.kill()


def test_a_reader_follows_a_file_that_grows(file: int) -> None:
    reader = Reader(file)
    reader.read()
    processes = [Counting(file, count_ok("add", 1)) for _ in range(3)]
    assert reader.read().methods()["add"].outcomes["ok"] == 3
    for process in processes:
        process.kill()


def test_what_finds_no_room_counts_as_other(file: int) -> None:
    row = Row(file)
    for number in range(MOST_BLOCKS + 10):
        row.block(Block.METHOD, f"m{number}")[OK + 1] += 1
    row.block(Block.METHOD, "x" * NAME_BYTES)[OK + 1] += 1
    row.block(Block.LIMIT, "late")[0] += 1
    calls = ok_calls(file)
    assert len(calls) == MOST_BLOCKS - 1
    assert sum(calls.values()) == MOST_BLOCKS + 11
    assert calls["other"] == 13
    assert not Reader(file).read().of(Block.LIMIT)


def test_a_block_of_a_later_version_is_left_out(file: int) -> None:
    row = Row(file)
    row.block(Block.METHOD, "add")[OK + 1] += 2
    row._memory[NAME_BYTES : NAME_BYTES + 6] = b"\xffother"
    assert ok_calls(file) == {"add": 2}


def test_sums_over_rows_know_no_limit(file: int) -> None:
    """512 workers with 1,000 calls each add up to 2**64 ns within hours: neither that sum nor its neighbours err."""

    def fill(row: Row) -> None:
        for name in ("add", "sub"):
            cells = row.block(Block.METHOD, name)
            cells[OK], cells[OK + 1], cells[OK + 2] = (1 << 64) - 1, 5, 1 << 63

    processes = [Counting(file, fill) for _ in range(3)]
    for name in ("add", "sub"):
        durations = Reader(file).read().methods()[name].durations
        assert durations.seconds == 3 * ((1 << 64) - 1) / 1e9
        assert list(durations.buckets[:3]) == [15, 3 << 63, 0]
    for process in processes:
        process.kill()


def test_large_sums_do_not_touch_their_neighbours(file: int) -> None:
    def fill(row: Row) -> None:
        for place in range(8):
            row.block(Block.METHOD, "add")[OK + 1 + place] = (1 << 62) + place

    processes = [Counting(file, fill) for _ in range(3)]
    buckets = Reader(file).read().methods()["add"].durations.buckets
    assert list(buckets[:8]) == [3 * ((1 << 62) + place) for place in range(8)]
    for process in processes:
        process.kill()


def test_512_rows_are_read_in_a_moment(file: int) -> None:
    for place in range(512):
        os.ftruncate(file, (place + 1) * ROW_BYTES)
    row = Row(file)
    for number in range(20):
        count_ok(f"method_{number}", number + 1)(row)
    content = os.pread(file, ROW_BYTES, 0)
    for place in range(1, 512):
        os.pwrite(file, content[: 64 * NAME_BYTES], place * ROW_BYTES)
        at = place * ROW_BYTES + MOST_BLOCKS * NAME_BYTES
        os.pwrite(file, content[MOST_BLOCKS * NAME_BYTES :][: 64 * 512], at)
    reader = Reader(file)
    reader.read()
    seconds = []
    for _ in range(5):
        began = time.process_time()
        found = families(reader.read())
        seconds.append(time.process_time() - began)
    assert reader.read().methods()["method_19"].outcomes["ok"] == 512 * 20
    assert len(found) == 10
    assert min(seconds) < 0.05


def named(found: list[Family], name: str) -> dict[str, float]:
    """Return the samples of one family, each by its suffix and labels."""
    (family,) = (family for family in found if family.name == name)
    lines = {sample.suffix + ",".join(f"{a}={b}" for a, b in sample.labels): sample.value for sample in family.samples}
    assert len(lines) == len(family.samples), "found a sample twice"
    return lines


def test_the_families_of_totals(file: int) -> None:
    row = Row(file)
    count_ok("add", 5)(row)
    add = row.block(Block.METHOD, "add")
    add[Outcome.TIMEOUT] += 1
    add[FAILED] += 2_000_000_000
    add[FAILED + 1 + bucket_of(2_000_000_000)] += 1
    row.other[Outcome.ERROR] += 2
    row.block(Block.LIMIT, "max_depth")[0] += 4
    row.block(Block.RESTARTS, "workers\nmax_requests")[0] += 3
    row.own[OwnCell.STALLS] = 6
    row.own[OwnCell.HANDOVERS + 1] = 2
    row.own[OwnCell.QUEUE + BUCKETS] = 1
    found = families(Reader(file).read(), ("max_depth", "descriptors"), is_leader=True)
    calls = named(found, "rpccluster_calls")
    assert calls["_totalmethod=add,outcome=ok"] == 5
    assert calls["_totalmethod=add,outcome=timeout"] == 1
    assert calls["_totalmethod=other,outcome=error"] == 2
    durations = named(found, "rpccluster_call_duration_seconds")
    assert durations["_bucketmethod=add,le=2e-05"] == 0
    assert durations["_bucketmethod=add,le=4e-05"] == 5
    assert durations["_bucketmethod=add,le=2.62144"] == 6
    assert durations["_bucketmethod=add,le=+Inf"] == durations["_countmethod=add"] == 6
    assert durations["_summethod=add"] == pytest.approx(2.00015)
    assert named(found, "rpccluster_limit_hits") == {"_totallimit=descriptors": 0, "_totallimit=max_depth": 4}
    assert named(found, "rpccluster_restarts") == {"_totalgroup=workers,reason=max_requests": 3}
    assert named(found, "rpccluster_loop_stalls") == {"_total": 6}
    assert named(found, "rpccluster_handovers") == {"_total": 2}
    assert named(found, "rpccluster_handover_seconds")["_bucketle=2e-05"] == 2
    assert named(found, "rpccluster_call_queue_seconds")["_bucketle=83.88608"] == 0
    assert named(found, "rpccluster_call_queue_seconds")["_count"] == 1
    assert named(found, "rpccluster_leader") == {"": 1}
    assert all(family.help and family.kind in ("counter", "gauge", "histogram") for family in found)


def test_buckets_end_at_twice_as_much_each() -> None:
    assert [bucket_of(ns) for ns in (0, 19_999, 20_000, 39_999, 40_000)] == [0, 0, 1, 1, 2]
    assert bucket_of(10**15) == BUCKETS - 1
