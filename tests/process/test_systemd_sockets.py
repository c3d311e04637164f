"""Sockets that systemd passes: served by name, kept over reload, upgrade and stop, and never anybody else's."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Callable

import pytest
from made_up_systemd import MadeUpSystemd, Unit

from rpccluster import Client
from rpccluster.testing import call_once, is_alive, wait_until

SERVICE = """
import os, subprocess

class It:
    def pid(self):
        return os.getpid()

    def told(self):
        return [name for name in os.environ if name.startswith(("LISTEN_", "NOTIFY_", "WATCHDOG_"))]

    def program(self):
        return subprocess.run(["sh", "-c", "env; ls -l /proc/self/fd"], capture_output=True, text=True).stdout
"""

MakeUnit = Callable[..., Unit]


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[MadeUpSystemd]:
    """One with a notify socket that nobody reads."""
    made = MadeUpSystemd(tmp_path)
    yield made
    made.close()


@pytest.fixture
def unit(systemd: MadeUpSystemd, tmp_path: Path) -> Iterator[MakeUnit]:
    """Makes the cluster that systemd starts, not started yet."""
    with ExitStack() as at_the_end:

        def make(**options: object) -> Unit:
            made = Unit(systemd, tmp_path, {"service": "it:It", "bind": "fd://", **options})
            made.write_module("it", SERVICE)
            at_the_end.callback(made.stop)
            return made

        yield make


def test_all_of_them_are_served(systemd: MadeUpSystemd, unit: MakeUnit, tmp_path: Path) -> None:
    """TCP and Unix, two of one name; `status` shows where; no process of a worker learns of systemd."""
    addresses = [systemd.listen("web"), systemd.listen("web"), systemd.listen("local", f"{tmp_path}/local.sock")]
    started = unit().start()
    assert started.status()["master"]["listeners"] == addresses
    workers = started.worker_pids()
    for address in addresses:
        assert call_once(address, "pid") in workers
    with Client(addresses[2]) as client:
        assert client.call("told") == []
        told = client.call("program")
        assert not [line for line in told.splitlines() if line.startswith(("LISTEN_", "NOTIFY_", "WATCHDOG_"))]
        assert "socket:" not in told


def test_bind_chooses_by_name(systemd: MadeUpSystemd, unit: MakeUnit) -> None:
    """Others are left to a later reload, beside addresses of our own; what nobody accepts is logged."""
    web, api = systemd.listen("web"), systemd.listen("api")
    started = unit(bind="fd://api, tcp://127.0.0.1:0").start()
    assert started.address == api
    assert len(started.status()["master"]["listeners"]) == 2
    started.wait_log("Nobody accepts at what systemd passes as web")
    waiting = socket.create_connection(("127.0.0.1", int(web.rpartition(":")[2])))
    started.write_config(bind="fd://")
    assert started.run("reload", "--all").returncode == 0
    assert started.status()["master"]["listeners"] == [web, api]
    with waiting:
        waiting.sendall(b"\x94\x00\x01\xa3pid\x90")
        assert waiting.recv(100)[:3] == b"\x94\x01\x01"
    started.write_config(bind="fd://web")
    assert started.run("reload", "--all").returncode == 0
    assert started.run("reload", "--all").returncode == 0
    assert call_once(web, "pid") in started.worker_pids()


def test_they_stay_over_reload_upgrade_and_stop(systemd: MadeUpSystemd, unit: MakeUnit, tmp_path: Path) -> None:
    """No caller is refused, a Unix path is never unlinked, and who calls between two starts is answered by the next."""
    path = f"{tmp_path}/it.sock"
    addresses = [systemd.listen("it", path), systemd.listen("it")]
    inode = os.stat(path).st_ino
    started = unit().start()
    first = started.master_pid
    assert started.run("reload", "--all").returncode == 0
    assert started.run("upgrade").returncode == 0
    second = started.wait_upgraded(first)
    wait_until(lambda: not is_alive(first))
    started.signal(signal.SIGUSR2)  # once more, from one that inherited them
    third = started.wait_upgraded(second)
    assert started.status()["master"]["listeners"] == addresses
    for address in addresses:
        assert call_once(address, "pid") in started.worker_pids()
    assert started.run("reload", "--all").returncode == 0
    assert started.run("stop").returncode == 0
    wait_until(lambda: not is_alive(third))
    with Client(addresses[0], timeout=60) as client:
        waiting = client.call_async("pid")
        assert os.stat(path).st_ino == inode
        started.start()
        assert waiting.result(60) in started.worker_pids()
    started.stop()
    assert os.stat(path).st_ino == inode


def test_a_failed_upgrade_loses_none(systemd: MadeUpSystemd, unit: MakeUnit) -> None:
    """The old master goes on with them."""
    address = systemd.listen("it")
    started = unit().start()
    started.write_config(bind="fd://other")
    assert started.run("upgrade").returncode == 1
    reloaded = started.run("reload", "--all")
    assert (reloaded.returncode, "but it" in reloaded.stderr) == (1, True)
    assert call_once(address, "pid") in started.worker_pids()
    assert started.status()["master"]["listeners"] == [address]


def test_in_the_background(systemd: MadeUpSystemd, unit: MakeUnit) -> None:
    """They were taken before the process got another pid; a reload and an upgrade of the daemon have them, too."""
    address = systemd.listen("it")
    started = unit(log_file="cluster.log")
    process = started.launch("-D", stderr=subprocess.DEVNULL)
    assert process.wait(40) == 0
    first = int(started.wait_ready()["master"]["pid"])
    assert first != process.pid
    assert call_once(address, "pid") in started.worker_pids()
    assert started.run("upgrade").returncode == 0
    started.wait_upgraded(first)
    assert call_once(address, "pid") in started.worker_pids()
    assert started.run("stop").returncode == 0


@pytest.mark.parametrize(
    ("bind", "told"),
    [
        ("fd://wep", "cannot listen at fd://wep: systemd has passed no socket of that name, but web, mail"),
        ("fd://mail", "found mail (descriptor 4), a socket of type SOCK_DGRAM, expected a TCP or Unix stream socket"),
        ("fd://, fd://web", "bind: found fd://web beside fd://, expected one of them: they overlap"),
        ("fd://a:b", "found 'fd://a:b', expected fd:// or fd://NAME"),
    ],
)
def test_what_cannot_be_had_is_a_fault(systemd: MadeUpSystemd, unit: MakeUnit, bind: str, told: str) -> None:
    """Of the line in the file, with what there is."""
    systemd.listen("web")
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind(("127.0.0.1", 0))
    systemd.passes("mail", datagrams)
    made = unit(bind=bind)
    process = made.launch()
    _, stderr = process.communicate(timeout=40)
    assert process.returncode == 1
    assert f"{made.config}:3: bind: " in stderr
    assert told in stderr


def test_a_start_without_systemd(unit: MakeUnit) -> None:
    """Nothing is passed, or to a shell that did not exec: both are told apart. A client has no use for such a name."""
    made = unit()
    process = made.launch()
    assert "systemd has passed no socket (LISTEN_FDS is not set)" in process.communicate(timeout=40)[1]
    made.systemd.environment.update(LISTEN_FDS="1", LISTEN_PID="1")
    process = made.launch()
    assert "found LISTEN_PID '1', expected " in process.communicate(timeout=40)[1]
    called = made.run("call", "fd://web", "pid")
    assert (called.returncode, "fd:// is for bind" in called.stderr) == (2, True)
