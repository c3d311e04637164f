"""The loop is woken by threads: everything that they put arrives, once."""

from __future__ import annotations

import os
from typing import Any

import gevent
import pytest

from rpccluster.system import self_pipe
from rpccluster.worker.native.primitives import start_new_thread
from rpccluster.worker.native.wake import Wake

from ..rig import until


@pytest.mark.parametrize("way", ["eventfd", "pipe"])
def test_what_threads_put_arrives_in_their_order(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """None is lost, none comes twice; by either means of the kernel."""
    if way == "pipe":
        monkeypatch.delattr(os, "eventfd", raising=False)
    taken: dict[int, list[int]] = {number: [] for number in range(4)}
    wake = Wake(gevent.get_hub().loop, lambda thread, value: taken[thread].append(value))

    def put(thread: int) -> None:
        for value in range(2000):
            wake.put((thread, value))

    for number in taken:
        start_new_thread(put, (number,))
    until(lambda: all(len(values) == 2000 for values in taken.values()))
    assert all(values == list(range(2000)) for values in taken.values())
    wake.put((0, "the last"))
    until(lambda: taken[0][-1] == "the last")


@pytest.mark.parametrize("way", ["eventfd", "pipe"])
def test_neither_end_blocks_nor_is_inherited(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """A read finds nothing, or all that was written."""
    if way == "pipe":
        monkeypatch.delattr(os, "eventfd", raising=False)
    ends = self_pipe()
    with pytest.raises(BlockingIOError):
        os.read(ends[0], 4096)
    os.write(ends[1], b"\1" * 8)
    assert os.read(ends[0], 4096)
    flags: Any = [(os.get_blocking(end), os.get_inheritable(end)) for end in ends]
    assert flags == [(False, False)] * 2
    for end in set(ends):
        os.close(end)
