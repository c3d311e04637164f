"""The listeners of a plugin: owned by the master, so that no restart of the plugin refuses a connection."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from patience import FULL_SCALE, within
from programs import free_port

from rpccluster.testing import RunningCluster, is_alive, wait_until

MakeCluster = Callable[..., RunningCluster]

RESTARTS = 100 if FULL_SCALE else 6

SERVERS = """
import asyncio
import os
import socket
import sys


def plain(plugin):
    listener = plugin.listeners[0]
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"plain %d" % os.getpid())


def on_asyncio(plugin):
    async def answer(reader, writer):
        writer.write(b"asyncio %d" % os.getpid())
        writer.close()

    async def serve():
        server = await asyncio.start_server(answer, sock=plugin.listeners[0])
        await server.serve_forever()

    asyncio.run(serve())


def by_turns(plugin):
    # the next process does the same in the other way
    with open("turns", "a+") as turns:
        turns.seek(0)
        number = len(turns.read())
        turns.write(".")

    async def serve():
        answered = asyncio.Event()

        async def answer(reader, writer):
            writer.write(b"asyncio")
            writer.close()
            answered.set()

        await asyncio.start_server(answer, sock=plugin.listeners[0])
        await answered.wait()
        await asyncio.sleep(0.05)

    if number % 2 == 0:
        asyncio.run(serve())
    else:
        for _ in range(5):
            connection, _ = plugin.listeners[0].accept()
            with connection:
                connection.sendall(b"plain")


def by_environment():
    assert int(os.environ["LISTEN_PID"]) == os.getpid()
    names = os.environ["LISTEN_FDNAMES"].split(":")
    listeners = [socket.socket(fileno=3 + number) for number in range(int(os.environ["LISTEN_FDS"]))]
    assert all(listener.getblocking() for listener in listeners)
    while True:
        connection, _ = listeners[0].accept()
        with connection:
            connection.sendall(" ".join(names).encode())


if __name__ == "__main__":
    by_environment()
"""


@pytest.fixture
def made(make_cluster: MakeCluster) -> RunningCluster:
    """A cluster of one worker that has not started, with the module servers."""
    cluster = make_cluster(number_workers=1, chdir=".")
    cluster.write_module("servers", SERVERS)
    return cluster


def address(cluster: RunningCluster, name: str = "server") -> tuple[str, int]:
    """The address at which a plugin listens."""
    (text,) = cluster.group(f"plugin:{name}")["listeners"]
    host, _, port = text.removeprefix("tcp://").rpartition(":")
    return host, int(port)


def ask(where: tuple[str, int] | str) -> str:
    """What a plugin answers to a new connection."""
    family = socket.AF_UNIX if isinstance(where, str) else socket.AF_INET
    with socket.socket(family) as connection:
        connection.settimeout(30)
        connection.connect(where)
        return connection.recv(100).decode()


def pid(cluster: RunningCluster) -> int:
    """The pid of the plugin's ready process."""

    def found() -> int:
        (process,) = cluster.group("plugin:server")["processes"]
        return int(process["pid"]) if process["state"] == "ready" else 0

    return wait_until(found)


class Knocking:
    """Makes new connections all the time. ``refused`` were not even connected; ``cut`` ended without an answer."""

    def __init__(self, where: tuple[str, int]) -> None:
        self.where = where
        self.answered = self.cut = 0
        self.refused: list[OSError] = []
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._knock) for _ in range(2)]

    def _knock(self) -> None:
        while not self._is_over.is_set():
            with socket.socket() as connection:
                connection.settimeout(30)
                try:
                    connection.connect(self.where)
                except OSError as error:
                    self.refused.append(error)
                    continue
                try:
                    is_answered = bool(connection.recv(100))
                except OSError:  # the process was killed that had accepted it
                    is_answered = False
                self.answered += is_answered
                self.cut += not is_answered

    def __enter__(self) -> Knocking:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()


@pytest.mark.parametrize("run", ["plain", "on_asyncio"])
def test_a_plugin_that_is_killed_again_and_again_refuses_no_connection(made: RunningCluster, run: str) -> None:
    """Callers wait in the backlog until the next process accepts, which is there within a second."""
    made.write_section("plugin:server", {"run": f"servers:{run}", "bind": "127.0.0.1:0"})
    made.start()
    with Knocking(address(made)) as knocking:
        for _ in range(RESTARTS):
            before, answered = pid(made), knocking.answered
            os.kill(before, signal.SIGKILL)
            wait_until(lambda before=before: not is_alive(before) and pid(made) != before, within(5))  # type: ignore[misc]
            wait_until(lambda answered=answered: knocking.answered > answered + 2, within(5))  # type: ignore[misc]
    print(f"{RESTARTS} restarts: {knocking.answered} answered, {knocking.cut} cut, {len(knocking.refused)} refused")
    assert knocking.refused == []
    assert knocking.cut <= 2 * RESTARTS  # one of each thread, which the killed process had accepted


def test_asyncio_and_a_plain_accept_by_turns_on_one_listener(made: RunningCluster) -> None:
    """The one does not leave the other a listener that does not block."""
    options = {"run": "servers:by_turns", "bind": "127.0.0.1:0", "restart_delay": 0.05}
    made.write_section("plugin:server", options)
    made.start()
    turns = made.folder / "turns"
    with Knocking(address(made)) as knocking:
        wait_until(lambda: len(turns.read_text()) > RESTARTS, 60)
    print(f"{RESTARTS} turns: {knocking.answered} answered, {knocking.cut} cut, {len(knocking.refused)} refused")
    assert knocking.refused == []
    assert made.group("plugin:server")["processes"][0]["restarts"] >= RESTARTS
    assert "could not" not in made.log_text()
    assert " died" not in made.log_text()


def test_a_command_inherits_them_as_from_systemd(made: RunningCluster) -> None:
    """Blocking, from descriptor 3 on, with their names; a Unix socket among them."""
    bind = f"unix://{made.folder}/it.sock, 127.0.0.1:0"
    made.write_section("plugin:server", {"command": "python3 servers.py", "bind": bind})
    made.start()
    assert ask(str(made.folder / "it.sock")) == "server-1 server-2"
    made.signal(signal.SIGTERM)
    assert made.wait() == 0
    assert not (made.folder / "it.sock").exists()


def test_a_removed_path_is_restored_and_the_plugin_gets_the_new_socket(made: RunningCluster) -> None:
    """A restart is the only way to hand it over; callers wait meanwhile."""
    path = made.folder / "it.sock"
    made.write_section("plugin:server", {"run": "servers:plain", "bind": f"unix://{path}"})
    made.start()
    before = ask(str(path))
    path.unlink()
    wait_until(path.exists)
    assert ask(str(path)) != before
    made.wait_log(f"Retiring plugin server (pid: {before.split()[1]}, slot: 0): unix://{path} was bound again")


def test_a_reload_keeps_the_listener_of_a_plugin_that_is_changed_or_renamed(made: RunningCluster) -> None:
    """And closes one that is not named any more."""
    port = free_port()
    options = {"run": "servers:plain", "bind": f"127.0.0.1:{port}", "stop_timeout": 0.2}
    made.write_section("plugin:server", options)
    made.start()
    first = pid(made)
    with Knocking(("127.0.0.1", port)) as knocking:
        made.write_section("plugin:server", {**options, "description": "another", "nice": 1})
        assert made.run("reload").returncode == 0
        wait_until(lambda: pid(made) != first)
        made.write_section("plugin:server", None)
        made.write_section("plugin:renamed", options)
        assert made.run("reload").returncode == 0
        answered = knocking.answered
        wait_until(lambda: knocking.answered > answered + 5)
    assert knocking.refused == []
    assert made.group("plugin:renamed")["listeners"] == [f"tcp://127.0.0.1:{port}"]
    made.write_section("plugin:renamed", {**options, "bind": "127.0.0.1:0"})
    assert made.run("reload").returncode == 0
    with pytest.raises(ConnectionRefusedError):
        ask(("127.0.0.1", port))
    assert ask(address(made, "renamed")).startswith("plain ")


@contextlib.contextmanager
def occupied() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_an_address_that_cannot_be_had_is_a_fault_with_its_line(made: RunningCluster) -> None:
    """At a start, nothing is left open."""
    with occupied() as port:
        made.write_section("plugin:server", {"run": "servers:plain", "bind": f"127.0.0.1:{port}"})
        done = made.run("--check-config")
        assert done.returncode == 0
        with made.launch() as start:
            told = start.communicate(timeout=30)[1]
    assert start.returncode == 1
    assert "cluster.ini:" in told
    assert f"bind: cannot listen at tcp://127.0.0.1:{port}: Address already in use" in told
