"""The subcommands that speak with the master: what they print, and their exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess

import psutil
import pytest

from rpccluster import RemoteError
from rpccluster.testing import is_alive, wait_until

SLOW_START = """
import pathlib
assert not pathlib.Path(__file__).with_name("broken").exists(), "as broken as can be"

class Fragile:
    def pid(self):
        return 1
"""


def test_status(cluster):
    """`status` shows the master and its workers, to people and, with --json, in the contract's form."""
    running = cluster(number_workers=2)
    shown = running.run("status")
    assert shown.returncode == 0
    assert shown.stdout.startswith(f"master {running.master_pid}: running, generation 1, ")
    told = json.loads(running.run("status", "--json").stdout)
    assert told["master"].keys() >= {
        "pid", "state", "uptime_seconds", "version", "generation", "number_workers", "listeners",
    }  # fmt: skip
    assert [worker["slot"] for worker in told["workers"]] == [0, 1]
    for worker in told["workers"]:
        assert worker["state"] == "ready" and is_alive(worker["pid"]) and worker["rss_bytes"] > 1_000_000
        assert worker.keys() >= {
            "slot", "pid", "generation", "state", "cpus", "connections", "active_calls", "calls", "errors",
            "rss_bytes", "uptime_seconds", "adopted", "handed_over",
        }  # fmt: skip


def test_the_cluster_may_be_named_behind_the_command(cluster):
    """By its file, or by its socket, which needs no file."""
    running = cluster(number_workers=1)
    program = running.command()[:-2]
    for words in (("-c", str(running.config)), ("--control", "control.sock")):
        done = subprocess.run(
            [*program, "status", *words], cwd=running.folder, capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"master {running.master_pid}: running")


def test_scale(cluster):
    """`scale` takes N, +N and -N and returns when it is so; what makes no sense is refused with a reason."""
    running = cluster(number_workers=2)
    for asked, number in (("4", 4), ("-3", 1), ("+1", 2)):
        done = running.run("scale", asked)
        assert (done.returncode, done.stdout) == (0, f"{number} workers\n")
        workers = running.status()["workers"]
        assert [(worker["slot"], worker["state"]) for worker in workers] == [(slot, "ready") for slot in range(number)]
    for nonsense in ("0", "-2", "many", "+99999", "1.5"):
        done = running.run("scale", nonsense)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("rpccluster: ")
    assert running.wait_ready()["master"]["number_workers"] == 2


def test_scale_says_when_a_worker_cannot_boot(make_cluster):
    """`scale` ends with 1 and the reason if the service no longer loads; those that serve go on."""
    running = make_cluster(service="fragile:Fragile", number_workers=1)
    running.write_module("fragile", SLOW_START)
    pids = running.start().worker_pids()
    (running.folder / "broken").touch()
    done = running.run("scale", "2")
    assert (done.returncode, "as broken as can be" in done.stderr) == (1, True)
    assert running.worker_pids() == pids


def test_reload(cluster):
    """`reload --all` returns when every worker is of the new generation, or with 1 and every fault of the file."""
    running = cluster(number_workers=2)
    done = running.run("reload", "--all")
    assert (done.returncode, done.stdout) == (0, "changed: workers\nkept: 0 processes\ngeneration 2\n")
    workers = running.status()["workers"]  # of the old ones, some may have a moment to go
    assert [worker["generation"] for worker in workers if worker["state"] == "ready"] == [2, 2]
    with running.control() as control:
        running.write_config(backlog="deep", nonsense=1)
        with pytest.raises(RemoteError) as raised:
            control.call("reload")
    assert f"{running.config}:" in str(raised.value)
    assert "backlog: found 'deep'" in str(raised.value) and "nonsense" in str(raised.value)


def test_upgrade(cluster):
    """`upgrade` returns when the new master serves and names it; or with 1 and the old one goes on."""
    running = cluster(number_workers=2)
    old = running.master_pid
    done = running.run("upgrade")
    new = running.master_pid
    assert (done.returncode, done.stdout) == (0, f"master {new}\n")
    assert new != old
    wait_until(lambda: not is_alive(old))
    running.write_module("sitecustomize", "import os, sys\nif 'upgrade' not in sys.argv: os._exit(7)\n")
    done = running.run("upgrade")
    assert (done.returncode, "could not start" in done.stderr) == (1, True)
    assert running.master_pid == new


@pytest.mark.parametrize("arguments", [["stop"], ["stop", "--now"]])
def test_stop(cluster, arguments):
    """`stop` returns when all is given back: a start right after it succeeds, on the same port and paths."""
    running = cluster(number_workers=2)
    running.write_config(bind=running.address)
    assert running.run("upgrade").returncode == 0
    pids = running.worker_pids()
    done = running.run(*arguments)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not any(is_alive(pid) for pid in pids)
    assert running.start().worker_pids()


@pytest.mark.parametrize("command", [["status"], ["scale", "2"], ["reload"], ["upgrade"], ["stop"], ["stop", "--now"]])
def test_without_a_master(make_cluster, command):
    """Every command exits with 3 if no master answers, whatever a dead one left behind."""
    running = make_cluster()
    assert running.run(*command).returncode == 3


def test_after_a_killed_master(cluster):
    """The control socket that a killed master left behind means that no master answers: 3."""
    running = cluster()
    os.kill(running.master_pid, signal.SIGKILL)
    running.wait()
    done = running.run("status")
    assert (running.folder / "control.sock").exists()
    assert (done.returncode, done.stderr.startswith("rpccluster: no master answers: ")) == (3, True)


def test_a_master_that_does_not_answer(cluster):
    """A master that is stopped, and one that ends while it is asked, do not answer: 3."""
    running = cluster()
    master = running.master_pid
    os.kill(master, signal.SIGSTOP)
    done = running.run("status")
    assert (done.returncode, done.stderr.startswith("rpccluster: no master answers: ")) == (3, True)
    with running.launch("reload") as command:
        wait_until(lambda: psutil.Process(command.pid).net_connections("unix"), what="it has connected")
        os.kill(master, signal.SIGKILL)
        _, told = command.communicate(timeout=10)
    assert (command.returncode, told.startswith("rpccluster: ")) == (3, True)


def test_without_a_control_socket(make_cluster):
    """A configuration that wants no control socket is a fault of the command's: 1, with what to do."""
    running = make_cluster()
    running.write_config(control_socket="")
    done = running.run("status")
    assert (done.returncode, "control_socket" in done.stderr) == (1, True)


def test_status_is_watched_until_one_stops_it(make_cluster):
    """An object a line comes each second, over a change of the cluster; INT is no failure; a gone master is one."""
    made = make_cluster(number_workers=1).start()
    watching = made.launch("status", "--watch", "--json")
    try:
        assert watching.stdout is not None
        assert len(json.loads(watching.stdout.readline())["workers"]) == 1
        made.run("scale", "2")
        seen = (json.loads(line)["workers"] for line in watching.stdout)
        assert any(len(workers) == 2 for workers in seen)
        watching.send_signal(signal.SIGINT)
        assert watching.wait(30) == 0
    finally:
        watching.kill()
        watching.communicate()
    watching = made.launch("status", "--watch")
    try:
        assert watching.stdout is not None
        assert "master" in watching.stdout.readline()
        made.stop()
        assert watching.wait(30) == 3
        assert "no master" in watching.communicate()[1]
    finally:
        watching.kill()
        watching.communicate()
