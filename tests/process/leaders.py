"""Several clusters that agree on who leads, each in a folder of its own, for the tests of leadership."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Callable

import psutil
from programs import free_port

from rpccluster.errors import RPCClusterError
from rpccluster.testing import RunningCluster, wait_until

__all__ = ["SERVICE", "SESSION", "Clusters", "kill_all", "leads", "wait_leader"]

SESSION = 2.0  # seconds
SERVICE = """
import os, time
from rpccluster import Service

class Shop(Service):
    def name(self):
        return os.environ["NAME"]

    def slow(self, seconds):
        open(__file__ + ".runs", "w").close()
        time.sleep(seconds)
        return os.environ["NAME"]

"""


class Clusters:
    """Makes clusters with one store; ``engine`` is `[leadership] engine`."""

    def __init__(self, make_cluster: Callable[..., RunningCluster], engine: str, **leadership: object) -> None:
        self._make = make_cluster
        self._leadership = {"engine": engine, "session_timeout": SESSION, "drain_delay": 0.3, **leadership}
        self.all: dict[str, RunningCluster] = {}
        self.registry = f"{engine}.json" if engine.startswith("file:") else engine

    def make(
        self, name: str, sections: Mapping[str, Mapping[str, object]] | None = None, **options: object
    ) -> RunningCluster:
        """Make a cluster that is not started yet. Its methods return its ``name``."""
        port = free_port()
        cluster = self._make(
            {"NAME": name},
            {"leadership": self._leadership, **(sections or {})},
            **{"service": "shop:Shop", "bind": f"tcp://127.0.0.1:{port}", "number_workers": 1, **options},
        )
        cluster.write_module("shop", SERVICE)
        self.all[name] = cluster
        return cluster

    def start(
        self, name: str, sections: Mapping[str, Mapping[str, object]] | None = None, **options: object
    ) -> RunningCluster:
        """Make and start one, and wait until it serves."""
        return self.make(name, sections, **options).start()

    def members(self, path: Path) -> list[str]:
        """The addresses that the file of the registry lists."""
        try:
            found = json.loads(path.read_text())["members"].values()
        except (OSError, ValueError):
            return []
        return sorted(entry["addresses"][0] for entry in found)


def leads(cluster: RunningCluster) -> bool:
    """Whether the cluster leads."""
    try:
        leadership: dict[str, Any] = cluster.status()["master"]["leadership"] or {}
    except RPCClusterError:
        return False
    return bool(leadership.get("is_leader"))


def wait_leader(clusters: list[RunningCluster], seconds: float = 20) -> RunningCluster:
    """Wait until one of the clusters leads, and return it."""
    return wait_until(lambda: next((each for each in clusters if leads(each)), None), seconds, "somebody leads")


def kill_all(cluster: RunningCluster) -> None:
    """Kill the master and all processes below it with SIGKILL, at once."""
    master = psutil.Process(cluster.master_pid)
    processes = [master, *master.children(recursive=True)]
    for signum in (signal.SIGSTOP, signal.SIGKILL):
        for process in processes:
            with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
                os.kill(process.pid, signum)
