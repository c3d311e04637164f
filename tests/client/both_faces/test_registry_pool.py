"""Pools that follow a registry: in a file, and in a real ZooKeeper."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from zookeeper_servers import ZooKeeper, zookeeper

from rpccluster.client import Pool, aio
from rpccluster.errors import AddressError, ConnectFailed, RPCClusterError

from ..servers import Server, serve


def value(*addresses: str, **more: Any) -> dict[str, Any]:
    """A member's value."""
    return {"addresses": list(addresses), "version": "1", "state": "serving", "started_at": 1.0, **more}


class InAFile:
    """A registry in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.where = f"file:{path}"

    def write(self, members: dict[str, Any]) -> None:
        """Have these members, by a whole new file."""
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps({"members": members}))
        new.rename(self.path)

    def away(self) -> None:
        """Nobody can read it."""
        self.path.unlink()

    def back(self) -> None:
        """It is there again, with rubbish first."""
        self.path.write_text("{")


class InZooKeeper:
    """A registry in ZooKeeper."""

    def __init__(self, server: ZooKeeper) -> None:
        from kazoo.client import KazooClient

        self.server = server
        self.where = f"zookeeper://{server.address}/shop"
        self._client = KazooClient(server.address)
        self._client.start()
        self._number = 0
        self._nodes: dict[str, tuple[str, bytes]] = {}

    def write(self, members: dict[str, Any]) -> None:
        """Have these members, each under a name that is new when its value is."""
        for name in [name for name in self._nodes if name not in members]:
            self._client.retry(self._client.delete, self._nodes.pop(name)[0])
        for name, entry in members.items():
            data = entry if isinstance(entry, bytes) else json.dumps(entry).encode()
            if name not in self._nodes:
                self._number += 1
                path = f"/shop/members/{name}-{self._number}"
                self._client.retry(self._client.create, path, data, makepath=True)
                self._nodes[name] = (path, data)

    def away(self) -> None:
        """Nobody can read it."""
        self.server.kill()

    def back(self) -> None:
        """It is there again."""
        self.server.start()

    def close(self) -> None:
        self._client.stop()
        self._client.close()


@pytest.fixture(params=["file", "zookeeper"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    if request.param == "file":
        yield InAFile(tmp_path / "leadership.json")
        return
    with zookeeper(tmp_path / "zookeeper") as server:
        made = InZooKeeper(server)
        try:
            yield made
        finally:
            server.send(signal.SIGCONT)
            made.close()


@pytest.fixture
def servers() -> Iterator[list[Server]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(serve()) for _ in range(3)]


def until(is_so: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def used(pool: Pool, servers: list[Server], count: int = 12) -> list[int]:
    """The servers that calls go to, by their numbers."""
    members = pool._members
    before = [0] * len(servers)
    for _ in range(count):
        place = members.look()
        before[[server.address for server in servers].index(str(members.at(place).address))] += 1
        assert pool.call("sum", 1, 2) == 3
    return [number for number, calls in enumerate(before) if calls]


def test_members_come_and_go(registry: Any, servers: list[Server]) -> None:
    """A pool waits for the first list; new members get calls, former ones none; without news nothing changes."""
    with Pool(registry.where, timeout=20) as pool:
        first = pool.call_async("sum", 1, 2)
        assert not first.done()
        registry.write({"a": value(servers[0].address)})
        assert first.result(20) == 3 == pool.call("sum", 1, 2)
        registry.write({"a": value(servers[0].address), "b": value(servers[1].address)})
        until(lambda: used(pool, servers) == [0, 1])
        registry.write({"b": value(servers[1].address), "c": value(servers[2].address)})
        until(lambda: used(pool, servers) == [1, 2])
        until(lambda: pool.call("sum", 1, 2) == 3 and pool.stats()["connections"] == 2)
        registry.away()
        assert used(pool, servers) == [1, 2]
        time.sleep(0.5)
        assert used(pool, servers) == [1, 2]
        registry.back()
        assert used(pool, servers) == [1, 2]
        registry.write({"a": value(servers[0].address)})
        until(lambda: used(pool, servers) == [0])


def test_rubbish_is_skipped_and_told_once(
    registry: Any, servers: list[Server], caplog: pytest.LogCaptureFixture
) -> None:
    """The others are used; so is none that is in another state than serving."""
    caplog.set_level(logging.WARNING, "rpccluster.client")
    with Pool(registry.where, timeout=20) as pool:
        good = {"a": value(servers[0].address)}
        bad = {"x": value("nonsense"), "y": {"addresses": 7}, "z": value(servers[2].address, state="draining")}
        registry.write({**good, **bad})
        assert pool.call("sum", 1, 2) == 3
        registry.write({**good, **bad, "b": value(servers[1].address)})
        until(lambda: used(pool, servers) == [0, 1])
    told = [record.getMessage() for record in caplog.records if "skipped" in record.getMessage()]
    assert (
        len(told) == 2
        and any("nonsense" in line for line in told)
        and any("found the addresses 7" in line for line in told)
    )


def test_on_asyncio(registry: Any, servers: list[Server]) -> None:
    """The same names, the same news."""

    async def main() -> None:
        async with aio.Pool(registry.where, timeout=20) as pool:
            first = pool.call_async("sum", 1, 2)
            await asyncio.sleep(0.05)
            registry.write({"a": value(servers[0].address)})
            assert await first == 3
            await pool.wait(20)
            registry.write({"b": value(servers[1].address)})
            while servers[1].address not in pool.stats()["addresses"]:
                assert await pool.call("sum", 1, 2) == 3
            assert list(pool.stats()["addresses"]) == [servers[1].address]

    asyncio.run(main())


def test_a_fork_follows_by_itself(tmp_path: Path, servers: list[Server]) -> None:
    """The child has a thread of its own."""
    registry = InAFile(tmp_path / "leadership.json")
    registry.write({"a": value(servers[0].address)})
    with Pool(registry.where, timeout=20) as pool:
        assert pool.call("sum", 1) == 1
        pid = os.fork()
        if pid == 0:
            with contextlib.suppress(BaseException):
                assert pool.call("sum", 1) == 1
                registry.write({"b": value(servers[1].address)})
                until(lambda: used(pool, servers, 1) == [1])
                os._exit(7)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        until(lambda: used(pool, servers, 1) == [1])


def test_a_pool_that_is_dropped_follows_no_more(tmp_path: Path, servers: list[Server]) -> None:
    """Closed or forgotten: its thread ends."""
    registry = InAFile(tmp_path / "leadership.json")
    registry.write({"a": value(servers[0].address)})

    def followers() -> int:
        return sum(thread.name == "rpccluster registry" for thread in threading.enumerate())

    pool = Pool(registry.where)
    assert pool.call("sum", 1) == 1 and followers() == 1
    pool.close()
    until(lambda: followers() == 0)


def test_nobody_is_listed(tmp_path: Path) -> None:
    """A call waits for a member within its timeout, and says then what is missing."""
    registry = InAFile(tmp_path / "leadership.json")
    with Pool(registry.where, timeout=0.3) as pool:
        with pytest.raises(ConnectFailed, match="No such file"):
            pool.call("sum", 1)
        with pytest.raises(ConnectFailed):
            pool.call_async("sum", 1).result(10)
        with pytest.raises(ConnectFailed):
            pool.wait(0.2)
        registry.write({})
        until(lambda: pool._registry is not None and pool._registry.addresses is not None)
        with pytest.raises(ConnectFailed, match="no server is listed"):
            pool.call("sum", 1)


@pytest.mark.parametrize("where", ["zookeeper://", "zookeeper://host:1", "file:", "zookeeper://host:99999/path"])
def test_what_is_no_registry(where: str) -> None:
    """It is told at once."""
    with pytest.raises(AddressError):
        Pool(where)
    with pytest.raises(AddressError):
        aio.Pool(where)


def test_without_kazoo(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the command that installs it."""
    monkeypatch.setitem(sys.modules, "kazoo.client", None)
    with pytest.raises(RPCClusterError, match=r"pip install 'rpccluster\[zookeeper\]'"):
        Pool("zookeeper://127.0.0.1:1/path")


PATCHED = """
import gevent.monkey
gevent.monkey.patch_all()
import gevent, json, sys
from pathlib import Path
from rpccluster import Pool

path, first, second = sys.argv[1:]

def write(address):
    new = Path(path + ".new")
    new.write_text(json.dumps({"members": {address: {"addresses": [address]}}}))
    new.rename(path)

with Pool(f"file:{path}", timeout=20) as pool:
    waiting = gevent.spawn(pool.call, "sum", 1, 2)
    gevent.sleep(0.05)
    write(first)
    assert waiting.get(timeout=20) == 3
    write(second)
    with gevent.Timeout(20):
        while list(pool.stats()["addresses"]) != [second]:
            assert pool.call("sum", 1, 2) == 3
            gevent.sleep(0.01)
print("done")
"""


def test_in_a_program_that_gevent_has_patched(tmp_path: Path, servers: list[Server]) -> None:
    """The thread that follows is a greenlet there."""
    command = [sys.executable, "-c", PATCHED, str(tmp_path / "lead.json"), servers[0].address, servers[1].address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "done\n", done.stderr
