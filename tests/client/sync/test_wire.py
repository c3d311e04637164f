"""How a thread waits for a reply."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rpccluster.client import Client

CALLS = 20

#: A server that answers some time after it has read; in another process, since its threads would switch with ours.
SERVER = """
import socket, sys, time
import msgpack
with socket.socket(socket.AF_UNIX) as listener:
    listener.bind(sys.argv[1])
    listener.listen()
    print(flush=True)
    peer, _ = listener.accept()
    unpacker = msgpack.Unpacker()
    while data := peer.recv(65536):
        unpacker.feed(data)
        time.sleep(0.01)
        for message in unpacker:
            if message[2] != "rpc.closing":
                peer.sendall(msgpack.packb([1, message[1], None, None]))
"""


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """That of the server."""
    path = tmp_path / "socket"
    with subprocess.Popen([sys.executable, "-c", SERVER, str(path)], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        server.stdout.readline()
        yield f"unix://{path}"
        server.kill()


def test_a_server_that_reads_wakes_no_thread_that_waits(address: str) -> None:
    """The thread sleeps once a call, until the reply is there."""
    with Client(address, timeout=None) as client:
        client.call("nothing")
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
        for _ in range(CALLS):
            client.call("nothing")
        assert resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - before < 1.5 * CALLS
