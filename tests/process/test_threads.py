"""Methods in native threads and on the asyncio loop, in a real cluster."""

from __future__ import annotations

from typing import Any

import pytest

from rpccluster import RemoteError
from rpccluster.testing import RunningCluster, wait_until

SERVICE = """
import asyncio
import os
import time
import rpccluster


class Kinds(rpccluster.Service):
    def pid(self):
        return os.getpid()

    @rpccluster.rpc(thread=True)
    def thread_sleep(self, seconds):
        time.sleep(seconds)
        return [os.getpid(), seconds]

    async def async_sleep(self, seconds):
        await asyncio.sleep(seconds)
        return [os.getpid(), seconds]

    def greenlet_sleep(self, seconds):
        time.sleep(seconds)
        return [os.getpid(), seconds]
"""
KINDS = ("greenlet_sleep", "thread_sleep", "async_sleep")


@pytest.fixture
def kinds(make_cluster: Any) -> Any:
    """A cluster whose service has methods of each kind."""

    def start(**options: object) -> RunningCluster:
        running: RunningCluster = make_cluster(service="kinds:Kinds", **options)
        running.write_module("kinds", SERVICE)
        return running.start()

    return start


def test_calls_of_all_kinds_are_answered(kinds: Any) -> None:
    """They wait beside each other, stand in the access log, and keep their time limit."""
    running = kinds(number_workers=1, max_greenlets=20, access_log="on", call_timeout=1)
    with running.client() as client:
        pid = client.call("pid")
        futures = [client.call_async(kind, 0.2 + number / 100) for number in range(5) for kind in KINDS]
        assert [future.result(10) for future in futures] == [
            [pid, 0.2 + number / 100] for number in range(5) for _ in KINDS
        ]
        late = [client.call_async(kind, 30) for kind in KINDS]
        for future in late:
            with pytest.raises(RemoteError, match=r"^TimeoutError: the call took longer than 1 seconds$"):
                future.result(10)
        for kind in KINDS:
            with pytest.raises(RemoteError, match=r"^ArgumentError: "):
                client.call(kind)
    wait_until(lambda: all(running.log_text().count(f" {kind} ") >= 7 for kind in KINDS))
