"""Sockets and pidfiles that somebody has removed, or that another cluster has by now: ours come back, others' stay."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rpccluster import Client
from rpccluster.testing import RunningCluster, is_alive, wait_until


@pytest.fixture
def running(make_cluster) -> RunningCluster:
    """A cluster whose paths are all in a folder of their own."""
    made = make_cluster(number_workers=2)
    run = made.folder / "run"
    made.write_config(
        bind=f"unix://{run}/it.sock", unix_socket=None, pidfile=run / "it.pid", control_socket=run / "control.sock"
    )
    return made.start()


def paths(running: RunningCluster) -> list[Path]:
    """Its socket, control socket and pidfile."""
    run = running.folder / "run"
    return [run / "it.sock", run / "control.sock", run / "it.pid"]


@contextmanager
def standing_still(pid: int) -> Iterator[None]:
    """The process is stopped meanwhile: it sees nothing until it is too late."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_what_was_swept_away_comes_back(running):
    """Folder and all; nobody is disconnected, no worker is replaced, a second start is refused."""
    master, workers = running.master_pid, running.worker_pids()
    address = running.address
    with Client(address) as before:
        assert before.call("sum", 1, 2) == 3
        shutil.rmtree(running.folder / "run")
        for path in paths(running):
            wait_until(path.exists, what=str(path))
        assert before.call("pid") in workers
        for worker in workers:
            running.client_of(worker).close()  # a new connection comes to each
    assert running.worker_pids() == workers
    wait_until(lambda: paths(running)[2].read_text() == f"{master}\n")
    for what in (running.address, "the control socket", "the pidfile"):
        told = re.compile(rf"Restored {re.escape(what)}.*, which somebody had removed")
        wait_until(lambda told=told: told.search(running.log_text()))
    again = running.run()
    assert (again.returncode, f"already runs with pid {master}" in again.stderr) == (1, True)
    running.signal(signal.SIGTERM)
    assert running.wait() == 0
    assert running.left_behind() == []


def test_a_second_start_before_anybody_has_looked(running):
    """It finds the first by the file that that has open, and leaves the first one's name to it."""
    master = running.master_pid
    with standing_still(master):
        for path in paths(running):
            path.unlink()
        again = running.run()
        assert again.returncode == 1
        pidfile = f"pidfile {paths(running)[2]}, which somebody has removed"
        assert again.stderr == f"rpccluster: rpccluster already runs with pid {master} ({pidfile})\n"
        assert paths(running)[2].read_text() == ""
    wait_until(lambda: paths(running)[2].read_text() == f"{master}\n")
    assert running.run("status").returncode == 0


@pytest.mark.parametrize("signum", [signal.SIGHUP, signal.SIGUSR2])
def test_they_are_there_after_a_signal(running, signum):
    """A reload and an upgrade begin with a look."""
    master, address = running.master_pid, running.address
    with standing_still(master):
        for path in paths(running):
            path.unlink()
        os.kill(master, signum)
    running.wait_log("Reloaded the configuration" if signum == signal.SIGHUP else "has taken over")
    wait_until(lambda: all(path.exists() for path in paths(running)) and running.try_status())
    status = running.wait_ready()
    wait_until(lambda: paths(running)[2].read_text() == f"{status['master']['pid']}\n")
    assert (status["master"]["pid"] == master) == (signum == signal.SIGHUP)
    with Client(address) as client:
        assert client.call("sum", 1, 2) == 3
    assert running.run("stop").returncode == 0
    wait_until(lambda: running.left_behind() == [])


def test_what_another_has_by_now_is_left_to_it(running, make_cluster):
    """A look, a reload, an upgrade and the stop of the old cluster touch nothing of the new one; it is told once."""
    socket, master = paths(running)[0], running.master_pid
    with standing_still(master):
        socket.unlink()
        other = make_cluster(number_workers=1, bind=f"unix://{socket}").start()
    mark = socket.stat().st_ino
    told = f"Cannot restore unix://{socket}, which somebody has removed: [Errno 98] Address already in use"
    running.wait_log(told)
    running.write_config(unix_socket_mode="0666")
    assert running.run("reload", "--all").returncode == 0
    assert socket.stat().st_mode & 0o777 == 0o600
    assert running.run("upgrade").returncode == 0
    assert running.run("stop").returncode == 0
    wait_until(lambda: not is_alive(master))
    assert socket.stat().st_ino == mark
    with Client(f"unix://{socket}") as client:
        assert client.call("pid") in other.worker_pids()


def test_a_path_that_cannot_be_had_is_told_once(running):
    """And is tried until it can: the cluster goes on meanwhile."""
    socket = paths(running)[0]
    socket.unlink()
    socket.mkdir()
    running.wait_log("there is a file that is no socket")
    socket.rmdir()
    wait_until(socket.is_socket)
    assert running.log_text().count("Cannot restore") <= 1
    with Client(running.address) as client:
        assert client.call("sum", 1, 2) == 3
