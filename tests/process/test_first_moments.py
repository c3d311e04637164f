"""Signals in the first moments, and while something else is under way: what is published works, nothing is lost."""

from __future__ import annotations

import os
import signal
import time

import pytest

from rpccluster.testing import RunningCluster, wait_until

SLOW = """
import pathlib, time
HERE, END = pathlib.Path(__file__).parent, time.monotonic() + 60
while (HERE / "slow").exists() and time.monotonic() < END:
    time.sleep(0.02)
if (HERE / "sour").exists():
    raise RuntimeError("sour")
"""
SERVICE = "class Slow:\n    def ping(self):\n        return 1\n"


def _slow(make_cluster, **options: object) -> RunningCluster:
    """A cluster whose workers boot once there is no file ``slow``, and fail if there is a file ``sour`` then."""
    running = make_cluster(service="slowly:Slow", number_workers=1, **options)
    running.write_module("slowly", SLOW + SERVICE)
    return running


def _first_pid(running: RunningCluster) -> int:
    """The pid in the pidfile, as soon as it stands there."""
    path, deadline = running.folder / "cluster.pid", time.monotonic() + 20
    while time.monotonic() < deadline:
        if path.exists() and (text := path.read_text().strip()):
            return int(text)
    raise AssertionError("no pid was written")


@pytest.mark.parametrize("name", ["HUP", "USR1", "USR2", "TTIN", "WINCH", "TERM"])
def test_a_signal_as_soon_as_the_pid_is_known(make_cluster, name):
    """It is obeyed, or kept until the start is done: none ends the master but TERM, which leaves nothing behind."""
    running = make_cluster(number_workers=1)
    running.start(are_ready=False)
    os.kill(_first_pid(running), getattr(signal, f"SIG{name}"))
    if name == "TERM":
        assert running.wait() == 0
        assert running.left_behind() == []
    elif name == "WINCH":
        wait_until(lambda: (running.try_status() or {"master": {"state": ""}})["master"]["state"] == "drained")
    else:
        running.wait_log(f"Handling signal: {name.lower()}")
        generation = 2 if name in ("HUP", "USR2") else 1
        wait_until(lambda: running.wait_ready()["master"]["generation"] == generation)


def test_a_daemon_that_is_stopped_while_it_starts_has_not_started(make_cluster):
    """Its shell is told so."""
    running = _slow(make_cluster, graceful_timeout=1, log_file="cluster.log")
    (running.folder / "slow").touch()
    with running.launch("-D") as start:
        os.kill(_first_pid(running), signal.SIGTERM)
        _, told = start.communicate(timeout=30)
    assert (start.returncode, told.splitlines()[-1]) == (1, "rpccluster: stopped before it had started")
    assert running.left_behind() == []


def test_an_upgrade_waits_for_the_reload(make_cluster):
    """USR2 while a reload's first worker boots is kept, and obeyed then."""
    running = _slow(make_cluster).start()
    (running.folder / "slow").touch()
    running.signal(signal.SIGHUP)
    running.wait_log("Handling signal: hup")
    running.signal(signal.SIGUSR2)
    running.wait_log("Keeping signal: usr2, until the reload is done")
    (running.folder / "slow").unlink()
    wait_until(lambda: running.wait_ready()["master"]["generation"] == 3)


def test_a_reload_waits_for_the_upgrade(make_cluster):
    """HUP while a new master boots is kept, the last one of several, and is the new master's in the end."""
    running = _slow(make_cluster).start()
    (running.folder / "slow").touch()
    master = running.master_pid
    os.kill(master, signal.SIGUSR2)
    running.wait_log("Booting new master")
    os.kill(master, signal.SIGUSR2)
    running.wait_log("Keeping signal: usr2, until the upgrade is done")
    os.kill(master, signal.SIGHUP)
    running.wait_log("Keeping signal: hup, until the upgrade is done")
    (running.folder / "slow").unlink()
    wait_until(lambda: running.wait_ready()["master"]["generation"] == 3)
    assert running.log_text().count("Handling signal: usr2") == 1


def test_a_reload_comes_after_an_upgrade_that_failed(make_cluster):
    """The old master does what it was asked for meanwhile."""
    running = _slow(make_cluster).start()
    (running.folder / "slow").touch()
    running.signal(signal.SIGUSR2)
    running.wait_log("Booting new master")
    running.signal(signal.SIGHUP)
    running.wait_log("Keeping signal: hup")
    (running.folder / "sour").touch()
    (running.folder / "slow").unlink()
    running.wait_log("Upgrade failed, nothing has changed")
    running.wait_log("Handling signal: hup")
    running.wait_log("Reload failed: its first worker could not boot")
    assert running.wait_ready()["master"]["generation"] == 1
