"""Clients whose workers are killed under a call, ten times: each has an error, and one connection all the while."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from foreign import tcp
from programs import needed
from worker_killed import WORKER_LOST

from rpccluster import Client, RemoteError, aio
from rpccluster.testing import RunningCluster
from rpccluster.worker.hot.choice import why_not_compiled

pytestmark = pytest.mark.skipif(bool(why_not_compiled()), reason="the compiled engine alone notes what is needed")

KILLS = 10
SERVICE = """
import os, signal
import rpccluster

class Mortal(rpccluster.Service):
    def die(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def whose(self):
        "The worker, and the connection as it sees that."
        return [os.getpid(), str(rpccluster.current_call().peer)]
"""

NEOVIM = """
local channel = vim.fn.sockconnect("tcp", vim.env.HOST .. ":" .. vim.env.PORT, { rpc = true })
local found = {}
for kill = 1, tonumber(vim.env.KILLS) do
  local _, refused = pcall(vim.rpcrequest, channel, "die")
  found[kill] = { refused, vim.rpcrequest(channel, "whose") }
end
io.stdout:write(vim.fn.json_encode(found))
vim.cmd("qall!")
"""

OLD_LIBRARY = """
import json, os, msgpackrpc

address = msgpackrpc.Address(os.environ["HOST"], int(os.environ["PORT"]))
client = msgpackrpc.Client(address, timeout=60, unpack_encoding="utf-8")
found = []
for kill in range(int(os.environ["KILLS"])):
    try:
        client.call("die")
    except msgpackrpc.error.RPCError as error:
        found.append([str(error), client.call("whose")])
print(json.dumps(found))
"""

Found = list[tuple[str, tuple[int, str]]]


@pytest.fixture
def mortal(make_cluster: Callable[..., RunningCluster]) -> RunningCluster:
    """Two workers, so that one is ready when the other one is killed."""
    running = make_cluster(service="mortal:Mortal", crash_safe=True, number_workers=2)
    running.write_module("mortal", SERVICE)
    return running.start()


def check(found: Found) -> None:
    """Each kill cost an error; the connection is the same, and each time another worker's."""
    assert [error for error, _ in found] == [WORKER_LOST] * KILLS
    owners, connections = zip(*(whose for _, whose in found))
    assert len(set(connections)) == 1
    assert len(set(owners)) == KILLS


def output_of(command: list[str], running: RunningCluster) -> Found:
    """What a client of another library has printed."""
    host, port = tcp(running)
    environment = {**os.environ, "HOST": host, "PORT": str(port), "KILLS": str(KILLS)}
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: Found = json.loads(done.stdout)
    return found


def test_our_client(mortal: RunningCluster) -> None:
    found: Found = []
    with Client(mortal.address, timeout=60) as client:
        for _ in range(KILLS):
            with pytest.raises(RemoteError) as raised:
                client.call("die")
            found.append((str(raised.value), client.call("whose")))
    check(found)


def test_our_client_on_asyncio(mortal: RunningCluster) -> None:
    found: Found = []

    async def calls() -> None:
        async with aio.Client(mortal.address, timeout=60) as client:
            for _ in range(KILLS):
                with pytest.raises(RemoteError) as raised:
                    await client.call("die")
                found.append((str(raised.value), await client.call("whose")))

    asyncio.run(calls())
    check(found)


def test_neovim(mortal: RunningCluster, tmp_path: Path) -> None:
    """It says itself which channel and method an error is of."""
    script = tmp_path / "client.lua"
    script.write_text(NEOVIM)
    start = f"exec {needed('nvim')} --headless -u NONE -S {script} -c cquit"
    found = output_of(["sh", "-c", start], mortal)
    assert all(WORKER_LOST in error for error, _ in found)
    check([(WORKER_LOST, whose) for _, whose in found])


def test_msgpack_rpc_python(mortal: RunningCluster, old_library: str, tmp_path: Path) -> None:
    script = tmp_path / "client.py"
    script.write_text(OLD_LIBRARY)
    check(output_of([old_library, str(script)], mortal))
