"""Long messages in arrival move with their connections: through the master, but not through its memory."""

from __future__ import annotations

import fcntl
import signal
import socket
import struct
import termios
import time
from pathlib import Path

import msgpack
import pytest
from patience import FULL_SCALE, within

from rpccluster.address import parse_address
from rpccluster.testing import RunningCluster, wait_until

PEERS = 64 if FULL_SCALE else 12
MESSAGE_BYTES = (15 if FULL_SCALE else 6) << 20
GROWTH_BYTES = 32 << 20
STATUS_SECONDS = 0.2
REPLY_BYTES = len(msgpack.packb([1, 1, None, MESSAGE_BYTES]))


@pytest.mark.timeout(300)
def test_bytes_in_transit_stay_out_of_the_master(cluster):
    """Each peer has sent nearly all of a long message: a reload moves it whole, and status answers meanwhile."""
    running = cluster(service="sizes:Sizes", number_workers=2, max_message_size="16M")
    message = msgpack.packb([0, 1, "size", ["x" * MESSAGE_BYTES]])
    peers = [_send(running, message[:-10]) for _ in range(PEERS)]
    wait_until(lambda: not any(_unread(peer) for peer in peers), 60, "the workers have read it all")
    before = _reset_peak(running.master_pid)
    slowest = _reload(running)
    grown = _peak(running.master_pid) - before
    print(f"master + {grown / (1 << 20):.1f} MiB, status within {slowest:.3f} s")
    assert grown < GROWTH_BYTES
    assert slowest < within(STATUS_SECONDS)
    for peer in peers:
        peer.sendall(message[-10:])
    for peer in peers:
        assert msgpack.unpackb(_read(peer, REPLY_BYTES)) == [1, 1, None, MESSAGE_BYTES]
        peer.close()


@pytest.fixture
def cluster(make_cluster):
    def start(**options: object) -> RunningCluster:
        running = make_cluster(**options)
        running.write_module("sizes", "class Sizes:\n    def size(self, value):\n        return len(value)\n")
        return running.start()

    return start


def _send(running: RunningCluster, data: bytes) -> socket.socket:
    address = parse_address(running.address)
    peer = socket.create_connection((address.host, address.port), timeout=60)
    peer.sendall(data)
    return peer


def _unread(peer: socket.socket) -> int:
    """Bytes that the other side's kernel has, and its program has not."""
    return struct.unpack("i", fcntl.ioctl(peer, termios.TIOCOUTQ, b"\0" * 4))[0]


def _reload(running: RunningCluster) -> float:
    """Replace all workers; the longest that `status` took meanwhile, in seconds."""
    old, slowest = set(running.worker_pids()), 0.0
    running.signal(signal.SIGHUP)
    deadline = time.monotonic() + 120
    while True:
        began = time.monotonic()
        workers = running.status()["workers"]
        slowest = max(slowest, time.monotonic() - began)
        if not old & {worker["pid"] for worker in workers} and all(worker["state"] == "ready" for worker in workers):
            return slowest
        assert time.monotonic() < deadline, "the old workers are still there"


def _reset_peak(pid: int) -> int:
    """Measure the most memory from now on; how much it is now, in bytes."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return _peak(pid)


def _peak(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")


def _read(peer: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = peer.recv(size - len(data))
        assert piece, "the connection has ended"
        data += piece
    return data
