"""A client in a program that has put SIGPIPE at its default: a server that hangs up does not end the program."""

from __future__ import annotations

import subprocess
import sys

import pytest

BEGIN = """
import asyncio, math, os, signal, socket, sys, tempfile, time
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
if "unix" in sys.argv:
    path = os.path.join(tempfile.mkdtemp(), "socket")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    address = f"unix://{path}"
else:
    listener = socket.create_server(("127.0.0.1", 0))
    address = "127.0.0.1:%d" % listener.getsockname()[1]

def hang_up():
    listener.accept()[0].close()
    if "unix" in sys.argv:
        os.unlink(path)
        os.rmdir(os.path.dirname(path))
"""

ON_THREADS = """
from rpccluster.address import parse_address
from rpccluster.client.sync.wire import open_wire
from rpccluster.client.threads.sockets import NOW
wire = open_wire(parse_address(address), math.inf)
hang_up()
for _ in range(100):  # on TCP the first one is what the server answers with a reset
    try:
        wire.send(b"x", NOW)
    except OSError:
        break
    time.sleep(0.01)
else:
    sys.exit("no error")
"""

ON_ASYNCIO = """
from rpccluster.client.aio import Client
async def main():
    client = Client(address)
    connection = await client._connect()
    hang_up()
    for _ in range(100):
        connection._transport.write(b"x")
        if connection._transport.is_closing():
            break
        time.sleep(0.01)  # and the loop does not look
    else:
        sys.exit("no error")
    await client.close()
asyncio.run(main())
"""


@pytest.mark.parametrize(
    "program", [ON_THREADS, "import gevent.monkey; gevent.monkey.patch_all()" + ON_THREADS, ON_ASYNCIO]
)
@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_server_that_hangs_up_ends_no_program(kind: str, program: str) -> None:
    """An error, as anywhere else; not SIGPIPE."""
    head, _, rest = program.partition("\n")  # patching comes first
    done = subprocess.run(
        [sys.executable, "-c", f"{head}\n{BEGIN}\n{rest}", kind],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
