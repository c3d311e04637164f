"""msgpack-rpc-python's own server, in an environment of its own, as a second server for this project's clients."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

SERVER = """
import socket, sys, types
helper = sys.modules["helper"] = types.ModuleType("helper")
sys.path.insert(0, sys.argv[1])
import msgpackrpc, test_msgpackrpc
from msgpackrpc.transport import tcp

class Service(test_msgpackrpc.TestMessagePackRPC.TestServer):
    def echo(self, value):
        return value

listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen(64)
listener.setblocking(False)
server = msgpackrpc.Server(Service())
transport = tcp.ServerTransport(msgpackrpc.Address("127.0.0.1", 0))
transport._server = server
tcp.MessagePackServer(transport, io_loop=server._loop._ioloop, encodings=("utf-8", None)).add_socket(listener)
print(listener.getsockname()[1], flush=True)
server.start()
"""


@pytest.fixture(scope="module")
def port(old_library: str, old_tests: Path) -> Iterator[int]:
    """The port of the old library's server, with the service of its own tests and an echo."""
    process = subprocess.Popen([old_library, "-c", SERVER, str(old_tests.parent)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
