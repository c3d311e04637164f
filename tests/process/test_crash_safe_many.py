"""Many connections with ``crash_safe``: they outlive most workers at once, and end without leaving anything behind."""

from __future__ import annotations

import contextlib
import os
import resource
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence

import msgpack
import pytest
from callers import dial
from patience import FULL_SCALE, within

from rpccluster.testing import RunningCluster, wait_until
from rpccluster.worker.hot.choice import why_not_compiled

pytestmark = pytest.mark.skipif(bool(why_not_compiled()), reason="the compiled engine alone notes what is needed")

COUNT = 8000 if FULL_SCALE else 200
OTHER_DESCRIPTORS = 500
CYCLES = 10_000 if FULL_SCALE else 200
OPEN_AT_ONCE = 100


@pytest.fixture
def descriptors() -> Iterator[None]:
    """As many as `COUNT` connections need, in this process and in the cluster's."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = COUNT + OTHER_DESCRIPTORS
    if hard < wanted:
        pytest.skip(f"a process may have {hard} descriptors here, and {wanted} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def call_all(sockets: Sequence[socket.socket], number: int) -> list[float]:
    """Call ``echo`` on each at once; return after how many seconds each had its result."""
    call = msgpack.packb([0, number, "echo", [number]])
    due, times = {}, []
    with selectors.DefaultSelector() as selector:
        for sock in sockets:
            selector.register(sock, selectors.EVENT_READ)
            due[sock] = time.monotonic()
            sock.sendall(call)
        end_at = time.monotonic() + within(60.0)
        while due and time.monotonic() < end_at:
            for key, _ in selector.select(1.0):
                sock = key.fileobj  # type: ignore[assignment]
                assert msgpack.unpackb(sock.recv(1000)) == [1, number, None, number]
                times.append(time.monotonic() - due.pop(sock))
    assert not due
    return sorted(times)


@pytest.mark.timeout(240)
@pytest.mark.usefixtures("descriptors")
def test_all_connections_outlive_three_of_four_workers_at_once(make_cluster: Callable[..., RunningCluster]) -> None:
    """Every one answers a call soon."""
    running = make_cluster(crash_safe=True, number_workers=4, worker_connections=COUNT, restart_delay_max=0).start()
    running.wait_ready()
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(dial(running.address, 60.0)) for _ in range(COUNT)]
        before = call_all(sockets, 1)
        wait_until(lambda: [each["uncovered"] for each in running.status()["workers"]] == [0] * 4)
        for pid in running.worker_pids()[:3]:
            os.kill(pid, signal.SIGKILL)
        times = call_all(sockets, 2)
        print(f"{COUNT} connections: the median after {times[COUNT // 2]:.3f} s, all after {times[-1]:.3f} s")
        print(f"before, all after {before[-1]:.3f} s")
        assert times[-1] < within(2.0)
        assert "0 have ended" in running.log_text()
        assert call_all(sockets, 3)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("side", ["client", "worker"])
def test_connections_come_and_go_and_nothing_is_left(make_cluster: Callable[..., RunningCluster], side: str) -> None:
    """Whichever side ends them; the peer of a worker that does sees it soon."""
    running = make_cluster(crash_safe=True, number_workers=2).start()
    running.wait_ready()

    def master_descriptors() -> int:
        return len(os.listdir(f"/proc/{running.master_pid}/fd"))

    before, times = master_descriptors(), []
    for _ in range(CYCLES // OPEN_AT_ONCE):
        sockets = [dial(running.address, 60.0) for _ in range(OPEN_AT_ONCE)]
        call_all(sockets, 1)
        for sock in sockets:
            if side == "worker":
                began = time.monotonic()
                sock.sendall(b"\xc1")  # no message
                assert sock.recv(100) == b""
                times.append(time.monotonic() - began)
            sock.close()
    wait_until(lambda: master_descriptors() <= before, what="copies are closed")
    if times:
        times.sort()
        late = times[-max(1, len(times) // 100)]
        print(f"ends were seen after {times[len(times) // 2] * 1e3:.2f} ms, 99 of 100 after {late * 1e3:.2f}")
        assert times[len(times) // 2] < within(0.01)
