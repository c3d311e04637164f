"""USR2 between this build and an earlier one: in either direction no connection is lost, and no call."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest
from holding import gate, let_go

import rpccluster
from rpccluster.address import UnixAddress, parse_address
from rpccluster.testing import RunningCluster, is_alive, wait_until

HERE = Path(rpccluster.__file__).resolve().parent.parent

#: The last build whose masters leave fixed keys instead of a list of named things.
WITHOUT_LIST = "69c103b2389a59981bbe9fe609438bcd0f5d6998"

CONNECTIONS = 20

SERVICE = """
import os

import gevent
import rpccluster

class Build:
    def folder(self):
        return os.path.dirname(os.path.dirname(os.path.realpath(rpccluster.__file__)))

    def hold(self, path):
        while not os.path.exists(path):
            gevent.sleep(0.01)
        return "let go"
"""


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the earlier build; a checkout without its history has none."""
    folder = tmp_path_factory.mktemp("earlier")
    archive = subprocess.run(["git", "archive", WITHOUT_LIST, "rpccluster"], cwd=HERE, capture_output=True, check=False)
    if archive.returncode:
        pytest.skip(f"cannot read the earlier build: {archive.stderr.decode().strip()}")
    subprocess.run(["tar", "x"], cwd=folder, input=archive.stdout, check=True)
    return folder


class Builds:
    """A cluster that finds its build through a link in its own folder, which leads to one or to the other."""

    def __init__(self, running: RunningCluster) -> None:
        self.running = running
        running.write_module("build", SERVICE)

    def use(self, build: Path) -> None:
        new = self.running.folder / "new"
        new.symlink_to(build / "rpccluster")
        new.replace(self.running.folder / "rpccluster")

    def upgrade(self, build: Path) -> None:
        self.use(build)
        old = self.running.master_pid
        os.kill(old, signal.SIGUSR2)
        wait_until(lambda: (status := self.running.try_status()) and status["master"]["pid"] != old)


@pytest.fixture
def builds(make_cluster) -> Builds:
    return Builds(make_cluster(service="build:Build", unix_socket="build.sock"))


class Caller:
    """One connection, which is never made anew."""

    def __init__(self, address: str) -> None:
        where = parse_address(address)
        if isinstance(where, UnixAddress):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(where.path)
        else:
            self.socket = socket.create_connection((where.host, where.port))
        self.socket.settimeout(30)
        self._unpacker = msgpack.Unpacker()

    def ask(self, method: str, *params: object) -> None:
        self.socket.sendall(msgpack.packb([0, 1, method, params]))

    def answer(self) -> object:
        while True:
            data = self.socket.recv(65_536)
            assert data, "the connection was lost"
            self._unpacker.feed(data)
            for kind, _, error, result in self._unpacker:
                assert (kind, error) == (1, None)
                return result

    def call(self, method: str, *params: object) -> object:
        self.ask(method, *params)
        return self.answer()


@pytest.fixture
def callers() -> Iterator[list[Caller]]:
    made: list[Caller] = []
    yield made
    for caller in made:
        caller.socket.close()


@pytest.mark.parametrize("is_back", [False, True], ids=["from it", "back to it"])
def test_an_upgrade_between_builds_keeps_every_connection(builds, callers, earlier, is_back):
    """Connections at rest and such with a call that runs, by TCP and by a Unix socket."""
    before, after = (HERE, earlier) if is_back else (earlier, HERE)
    builds.use(before)
    running = builds.running.start()
    addresses = running.status()["master"]["listeners"]
    callers += [Caller(addresses[number % 2]) for number in range(CONNECTIONS)]
    assert {caller.call("folder") for caller in callers} == {str(before)}
    busy = callers[::4]
    for caller in busy:
        caller.ask("hold", gate(running))
    wait_until(lambda: sum(worker["active_calls"] for worker in running.status()["workers"]) == len(busy))
    builds.upgrade(after)
    let_go(running)
    assert [caller.answer() for caller in busy] == ["let go"] * len(busy)
    status = running.wait_ready()
    assert {caller.call("folder") for caller in callers} == {str(after)}
    assert status["master"]["generation"] == 2
    assert running.run("stop").returncode == 0
    assert running.left_behind() == []


def test_a_build_without_default_control_sockets(make_cluster, earlier, tmp_path):
    """From it the new master opens one; back to it the socket goes with the old master."""
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    environment = {"XDG_RUNTIME_DIR": str(runtime), "TMPDIR": str(runtime)}
    running = make_cluster(environment, service="build:Build", control_socket=None, number_workers=1)
    builds, pidfile = Builds(running), running.folder / "cluster.pid"

    def upgrade(build: Path) -> None:
        builds.use(build)
        old = pidfile.read_text()
        os.kill(int(old), signal.SIGUSR2)
        wait_until(lambda: pidfile.read_text() not in ("", old), what="the new master has taken over")
        wait_until(lambda: not is_alive(int(old)), what="the old master has gone")

    builds.use(earlier)
    running.start(are_ready=False)
    running.wait_log("Booting worker")
    wait_until(lambda: running.log_text().count("ready") >= 1)
    assert not list(runtime.rglob("*.sock"))
    try:
        upgrade(HERE)
        assert running.run("status").stdout.startswith(f"master {pidfile.read_text().strip()}: running")
        upgrade(earlier)
        assert not list(runtime.rglob("*.sock"))
    finally:
        os.kill(int(pidfile.read_text()), signal.SIGTERM)
        wait_until(lambda: not pidfile.read_text().strip(), what="the last master has gone")
