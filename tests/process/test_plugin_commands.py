"""The commands to plugins, at a real master: what they bring about, what they print, and their exit codes."""

from __future__ import annotations

import datetime
import json
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from rpccluster.testing import RunningCluster, is_alive, wait_until

CHECKOUT = Path(__file__).resolve().parents[2]
JOBS = """
import os, time
def run(what):
    print(what, os.getpid())
    while True:
        if os.path.exists("more"):
            os.remove("more")
            print("one more")
        time.sleep(0.05)
def fails():
    raise ValueError("as bad as can be")
"""


@pytest.fixture
def running(make_cluster: Any) -> RunningCluster:
    """A cluster of a worker and two plugins, one of which cannot run."""
    made: RunningCluster = make_cluster(number_workers=1)
    made.write_module("jobs", JOBS)
    made.write_section("plugin:good", {"run": "jobs:run", "args": "hello", "description": "does well"})
    made.write_section("plugin:bad", {"run": "jobs:nothing", "restart_delay": 60, "restart_delay_max": 60})
    made.start()
    made.wait_group("plugin:good")
    wait_until(lambda: "retry_in_seconds" in made.group("plugin:bad")["processes"][0])
    return made


def done(cluster: RunningCluster, *words: str) -> str:
    """What a command that succeeds prints."""
    ended = cluster.run(*words)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


def pids(cluster: RunningCluster, name: str = "good") -> list[int]:
    """The pids of a plugin's processes."""
    return [each["pid"] for each in cluster.group(f"plugin:{name}")["processes"] if each["pid"] is not None]


def test_the_list(running: RunningCluster) -> None:
    """Shows each with its state and its reason, to people and to programs."""
    head, good, bad = done(running, "plugin", "list").splitlines()
    assert head.split() == ["name", "state", "pids", "up", "restarts"]
    assert good.split()[:3] == ["good", "ready", str(pids(running)[0])] and good.endswith("does well")
    assert bad.startswith("bad ") and "module 'jobs' has no attribute 'nothing'" in bad
    told = json.loads(done(running, "plugin", "list", "--json"))
    assert [(each["name"], each["state"], each["description"]) for each in told] == [
        ("plugin:good", "ready", "does well"),
        ("plugin:bad", "waiting", ""),
    ]


def test_stop_start_restart(running: RunningCluster) -> None:
    """Each returns when it is so; what is so already is done."""
    (first,) = pids(running)
    done(running, "plugin", "stop", "good")
    assert pids(running) == [] and not is_alive(first)
    assert running.group("plugin:good")["state"] == "stopped"
    done(running, "plugin", "stop", "good")
    done(running, "plugin", "start", "good")
    (second,) = pids(running)
    done(running, "plugin", "start", "plugin:good")
    assert pids(running) == [second]
    done(running, "plugin", "restart", "good")
    (third,) = pids(running)
    assert len({first, second, third}) == 3 and not is_alive(second)


def test_what_cannot_be_done_is_told(running: RunningCluster) -> None:
    """With its reason, and 1; a name that is unknown with the nearest one."""
    ended = running.run("plugin", "start", "bad")
    assert ended.returncode == 1
    assert "module 'jobs' has no attribute 'nothing'" in ended.stderr
    ended = running.run("plugin", "restart", "goo")
    assert (ended.returncode, ended.stderr) == (1, "rpccluster: found no plugin 'goo'. Did you mean 'good'?\n")


def test_scale(running: RunningCluster) -> None:
    """Sets the number of one plugin's processes alone."""
    assert done(running, "scale", "plugin:good", "3") == "3 plugin:good\n"
    assert len(pids(running)) == 3
    assert done(running, "scale", "good", "-2") == "1 plugin:good\n"
    assert len(pids(running)) == 1
    assert done(running, "scale", "workers", "2") == "2 workers\n"
    assert running.status()["master"]["number_workers"] == 2
    assert running.run("scale", "good", "many").returncode == 1


def test_tail(running: RunningCluster) -> None:
    """Shows the last lines with their processes, and follows what comes."""
    (pid,) = pids(running)
    wait_until(lambda: f"[{pid}] [good] hello {pid}" in done(running, "plugin", "tail", "-n", "100", "good"))
    assert done(running, "plugin", "tail", "-n", "0", "good") == ""
    command = running.command("plugin", "tail", "-f", "good")
    with subprocess.Popen(command, cwd=running.folder, stdout=subprocess.PIPE, text=True) as follower:
        assert follower.stdout is not None
        lines: list[str] = []
        reader = threading.Thread(target=lambda: lines.extend(iter(follower.stdout.readline, "")))  # type: ignore
        reader.start()
        try:
            wait_until(lambda: lines)
            (running.folder / "more").touch()
            wait_until(lambda: any("[good] one more" in line for line in lines))
        finally:
            follower.kill()
            reader.join(20)


def test_the_shipped_example_runs(make_cluster: Any) -> None:
    """etc/plugins.ini, at a port of the kernel's."""
    made: RunningCluster = make_cluster()
    shipped = (CHECKOUT / "etc" / "plugins.ini").read_text()
    shipped = shipped.replace("%(here)s/../run/plugins.sock", str(made.options["control_socket"]))
    made.config.write_text(shipped.replace(":18801", ":0"))
    made.start(are_ready=False)
    for name in ("reminder", "load", "clock"):
        wait_until(lambda: made.try_status(), 30)
        made.wait_group(f"plugin:{name}")
    made.wait_log("[reminder] Look away from the screen for a moment.")
    made.wait_log("[load] ")
    (address,) = made.group("plugin:clock")["listeners"]
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        assert str(datetime.date.today().year) in connection.makefile().readline()
    assert "reminder  ready" in done(made, "status")
    assert done(made, "stop") == ""
    assert made.wait() == 0
