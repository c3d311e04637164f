"""Pushes of settings while calls run and workers are killed: no call sees two versions, no process is left behind."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import statistics
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from rpccluster import Client, RemoteError, RPCClusterError
from rpccluster.testing import RunningCluster, wait_until

FULL_SCALE = bool(os.environ.get("RPCCLUSTER_FULL_SCALE"))
WORKERS, PLUGINS, PUSHES, CALLERS = (16, 8, 200, 32) if FULL_SCALE else (3, 1, 12, 6)
REFUSED, KILLS = (1000, 100) if FULL_SCALE else (9, 5)

SERVICE = """
import os
import random
import time

import gevent
import rpccluster

class Shop:
    settings = {"price": rpccluster.Setting(int, 0), "refuser": rpccluster.Setting(int, 0)}
    switched = {}

    def pid(self):
        return os.getpid()

    def settings_check(self, new, changed):
        if new["refuser"] == os.getpid():
            raise ValueError("not with me")
        if new["refuser"] == -os.getpid():
            time.sleep(600)

    def settings_changed(self, old, new, changed):
        self.switched[rpccluster.settings.version] = time.monotonic()

    def twice(self):
        first = [rpccluster.settings.version, rpccluster.settings["price"]]
        gevent.sleep(random.uniform(0, 0.05))
        return [first, [rpccluster.settings.version, rpccluster.settings["price"]]]

    def times(self):
        return {str(version): at for version, at in self.switched.items()}
"""

PLUGIN = """
import os
import time
import rpccluster

def settings_changed(old, new, changed):
    at = time.monotonic()
    with open(f"switched.{os.getpid()}", "a") as file:
        print(rpccluster.settings.version, at, file=file)

def settings_check(new, changed):
    if int(new.get("refuser", 0)) == os.getpid():
        raise ValueError("not with me")
    if int(new.get("refuser", 0)) == -os.getpid():
        time.sleep(600)

def run(args):
    if args == "computes":
        while True:
            sum(range(1000))
    time.sleep(600)
"""


@pytest.fixture
def shop(make_cluster: Any, request: pytest.FixtureRequest) -> RunningCluster:
    """Workers, and plugins that sleep or compute."""
    seconds = getattr(request, "param", 60)
    running: RunningCluster = make_cluster(service="shop:Shop", number_workers=WORKERS, settings_timeout=seconds)
    running.write_module("shop", SERVICE)
    running.write_module("busy", PLUGIN)
    running.write_section("settings", {"price": "1"})
    for number in range(PLUGINS):
        how = "computes" if number == 0 else "sleeps"
        running.write_section(f"plugin:busy{number}", {"run": "busy:run", "args": how, "stop_timeout": 1, "nice": 19})
    running.start()
    for number in range(PLUGINS):
        running.wait_group(f"plugin:busy{number}")
    return running


class Callers:
    """Threads that call ``twice`` all the time, and note what is wrong."""

    def __init__(self, address: str, *, may_lose: bool) -> None:
        self._address = address
        self._may_lose = may_lose
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(CALLERS)]
        self.calls = 0
        self.wrong: list[Any] = []

    def _call(self) -> None:
        while not self._is_over.is_set():
            try:
                with Client(self._address) as client:
                    while not self._is_over.is_set():
                        first, second = client.call("twice")
                        self.calls += 1
                        if first != second or first[0] != first[1]:
                            self.wrong.append((first, second))
            except RPCClusterError as error:  # lost, or WorkerLost, of a connection that has moved
                if not self._may_lose:
                    self.wrong.append(error)

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            for thread in self._threads:
                thread.join()


def _versions(running: RunningCluster) -> set[int]:
    """Of all processes that are ready."""
    processes = [process for group in running.status()["groups"] for process in group["processes"]]
    return {process["settings_version"] for process in processes if process["state"] == "ready"}


def test_no_call_sees_two_versions(shop: RunningCluster) -> None:
    """The price is the version's number. No call fails, no process is replaced, and a busy plugin votes, too."""
    pids = shop.worker_pids()
    callers = Callers(shop.address, may_lose=False)
    with callers.at_work(), shop.control() as control:
        for version in range(2, PUSHES + 2):
            assert control.call("config.set", {"settings.price": str(version)}) == {"version": version}
            assert _versions(shop) == {version}
    assert not callers.wrong
    assert callers.calls > PUSHES
    assert shop.worker_pids() == pids
    times = []
    for pid in pids:
        with shop.client_of(pid) as client:
            times.append({int(version): at for version, at in client.call("times").items()})
    for path in shop.folder.glob("switched.*"):
        times.append({int(version): float(at) for version, at in map(str.split, path.read_text().splitlines())})
    assert len(times) == WORKERS + PLUGINS
    switches = [[each[version] for each in times if version in each] for version in times[0]]
    spreads = [1000 * (max(each) - min(each)) for each in switches]
    told = f"median {statistics.median(spreads):.1f} ms, most {max(spreads):.1f} ms"
    print(f"{callers.calls} calls; spread of a switch: {told}")
    if FULL_SCALE:
        assert statistics.median(spreads) < 20
        assert max(spreads) < 100


@pytest.mark.parametrize("shop", [2 if FULL_SCALE else 6], indirect=True)
def test_a_refused_push_mixes_nothing(shop: RunningCluster) -> None:
    """A random process refuses each third push, or says nothing, and is named."""
    version = 1
    pids = [process["pid"] for group in shop.status()["groups"] for process in group["processes"]]
    with shop.control() as control:
        for number in range(REFUSED):
            refuser = random.choice(pids) if number % 3 == 0 else 0
            is_silent = number % 12 == 6
            changes = {"settings.price": str(version + 1), "settings.refuser": str(-refuser if is_silent else refuser)}
            if refuser:
                who = rf"(worker|plugin busy\d) \(pid: {refuser}, slot: \d+\)"
                refused = rf"{who} refuses: settings_check refuses price .*refuser.*: ValueError: not with me"
                with pytest.raises(RemoteError, match=rf"from {who}, on price" if is_silent else refused):
                    control.call("config.set", changes)
            else:
                version += 1
                assert control.call("config.set", changes) == {"version": version}
            assert _versions(shop) == {version}


def test_workers_that_are_killed_meanwhile(shop: RunningCluster) -> None:
    """A push of which a voter ends is refused; all that live, and all that boot later, are at one version."""
    callers = Callers(shop.address, may_lose=True)
    with callers.at_work(), shop.control() as control:
        for _ in range(KILLS):
            shop.wait_ready()
            version = shop.status()["master"]["settings"]["version"]
            pid = random.choice(shop.worker_pids())
            timer = threading.Timer(random.uniform(0, 0.01), os.kill, (pid, signal.SIGKILL))
            timer.start()
            try:
                version = control.call("config.set", {"settings.price": str(version + 1)})["version"]
            except RemoteError as error:
                assert f"(pid: {pid}, " in str(error)
                assert "ended before it had voted" in str(error)
            timer.join()
            wait_until(lambda pid=pid: pid not in shop.worker_pids())  # type: ignore[misc]
            shop.wait_ready()
            wait_until(lambda version=version: _versions(shop) == {version})  # type: ignore[misc]
    assert not callers.wrong
