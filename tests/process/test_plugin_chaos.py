"""Plugins are killed, stopped, started, changed and upgraded at random, under calls to the workers."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from typing import Any, Callable

from rpccluster.testing import RunningCluster, wait_until

FULL_SCALE = bool(os.environ.get("RPCCLUSTER_FULL_SCALE"))
SECONDS = 90.0 if FULL_SCALE else 8.0

#: Each takes a lock that only one process can hold.
JOBS = """
import fcntl
import time


def take(name):
    file = open(f"{name}.lock", "w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        print("TWO OF", name)
    return file


def polite(name, plugin):
    file = take(name)
    plugin.stopping.wait()


def plain(name):
    file = take(name)
    time.sleep(1000)
"""
PLUGINS: dict[str, dict[str, object]] = {
    "first": {"run": "jobs:polite", "args": "first"},
    "later": {"run": "jobs:polite", "args": "later", "after": "first"},
    "plain": {"run": "jobs:plain", "args": "plain", "stop_timeout": 2},
    "command": {"command": "sleep 1000"},
}


class Chaos:
    """What befalls a cluster of plugins."""

    def __init__(self, cluster: RunningCluster, seed: int) -> None:
        self.cluster = cluster
        self.random = random.Random(seed)
        self.acts: list[Callable[[str], None]] = [
            self.kill,
            self.kill,
            lambda name: self.control("restart", name),
            lambda name: self.control("stop", name),
            lambda name: self.control("start", name),
            self.change,
            lambda name: self.run("reload"),
            lambda name: self.run("upgrade"),
        ]

    def act(self) -> None:
        self.random.choice(self.acts)(self.random.choice(list(PLUGINS)))

    def kill(self, name: str) -> None:
        """Kill the ready process of a plugin; one that boots would be a boot that failed."""
        for process in self.cluster.group(f"plugin:{name}")["processes"]:
            if process["state"] == "ready":
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process["pid"], signal.SIGKILL)

    def control(self, verb: str, name: str) -> None:
        with self.cluster.control() as control:
            control.call(f"plugin.{verb}", name)

    def change(self, name: str) -> None:
        self.cluster.write_section(f"plugin:{name}", {**PLUGINS[name], "env.CHANGED": self.random.random()})
        self.run("reload")

    def run(self, command: str) -> None:
        ended = self.cluster.run(command)
        assert ended.returncode == 0, ended.stderr


def test_plugins_in_chaos(make_cluster: Callable[..., RunningCluster]) -> None:
    """No call fails, no command fails, no plugin runs twice; at last each one runs, and nothing of them is left."""
    sections = {f"plugin:{name}": options for name, options in PLUGINS.items()}
    cluster = make_cluster(number_workers=2, sections=sections)
    cluster.write_module("jobs", JOBS)
    cluster.start()
    seed = int.from_bytes(os.urandom(4), "big")
    chaos, is_over, faults = Chaos(cluster, seed), threading.Event(), list[Any]()
    client = cluster.client()

    def call() -> None:
        try:
            while not is_over.is_set():
                assert client.call("sum", 1, 2) == 3
        except BaseException as error:
            faults.append(error)

    caller = threading.Thread(target=call)
    caller.start()
    try:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            chaos.act()
        for name in PLUGINS:
            chaos.control("start", name)
    finally:
        is_over.set()
        caller.join()
        client.close()
    assert faults == [], seed
    log = cluster.log_text()
    assert [fault for fault in ("TWO OF", "Traceback", "CRITICAL", "Cannot") if fault in log] == [], seed
    for name in PLUGINS:
        cluster.wait_group(f"plugin:{name}")
    cluster.signal(signal.SIGTERM)
    wait_until(lambda: not cluster.left_behind(), what="nothing is left")
