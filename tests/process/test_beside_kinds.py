"""What blocks, computes or waits in a thread or on the loop holds no other call of its worker up."""

from __future__ import annotations

import statistics
import time
from typing import Any

import pytest

from rpccluster.testing import RunningCluster, wait_until

SERVICE = """
import asyncio
import ctypes
import time
from rpccluster import rpc

LIBC = ctypes.CDLL(None)


class Beside:
    def plain(self):
        return 1

    @rpc(thread=True)
    def sleep_in_c(self, seconds):
        LIBC.usleep(int(seconds * 1e6))
        return seconds

    @rpc(thread=True)
    def compute(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pass
        return seconds

    async def sleep_on_loop(self, seconds):
        await asyncio.sleep(seconds)
        return seconds
"""
LASTS_SECONDS = 2.0
CALLS = 20


@pytest.mark.parametrize("kind", ["sleep_in_c", "compute", "sleep_on_loop"])
def test_other_calls_go_on(make_cluster: Any, kind: str) -> None:
    """Plain calls, one after the other, are answered before the one that lasts; the log tells of no stall."""
    running: RunningCluster = make_cluster(service="beside:Beside", number_workers=1, stall_warning=1)
    running.write_module("beside", SERVICE)
    with running.start().client() as client:
        lasting = client.call_async(kind, LASTS_SECONDS)
        wait_until(lambda: running.status()["workers"][0]["active_calls"] == 1)
        taken = []
        while len(taken) < CALLS and not lasting.done():
            began = time.monotonic()
            assert client.call("plain") == 1
            taken.append(time.monotonic() - began)
        print(f"median {statistics.median(taken) * 1e3:.2f} ms, longest {max(taken) * 1e3:.2f} ms")
        assert len(taken) == CALLS
        assert not lasting.done()
        assert lasting.result(30) == LASTS_SECONDS
    assert "held up" not in running.log_text()
    assert "stands still" not in running.log_text()
