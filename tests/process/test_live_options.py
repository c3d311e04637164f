"""Options that change while calls run: at once, in both directions, for connections that are there already."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from rpccluster import Client, ConnectionLost, RemoteError
from rpccluster.testing import RunningCluster, wait_until

FULL_SCALE = bool(os.environ.get("RPCCLUSTER_FULL_SCALE"))
WORKERS, CALLERS, ROUNDS = (8, 32, 30) if FULL_SCALE else (2, 3, 2)

SERVICE = """
import logging
import json
import os
import time

import gevent

class Shop:
    def sleep(self, seconds):
        gevent.sleep(seconds)
        return os.getpid()

    def spin(self, seconds):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            pass
        return os.getpid()

    def say(self, text):
        logging.getLogger("shop").debug("said at debug: %s", text)
        logging.getLogger("shop").warning("said: %s", text)
        return os.getpid()
"""

PLUGIN = """
import logging
import time

def run(plugin):
    while not plugin.stopping.wait(0.05):
        logging.getLogger("dict").debug("looked up")
"""


class Load:
    """Threads that call all the time, each over one connection. No call may fail."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(CALLERS)]
        self.wrong: list[Exception] = []
        self.calls = 0

    def _call(self) -> None:
        try:
            with Client(self._address) as client:
                while not self._is_over.is_set():
                    client.call("sleep", 0.005)
                    self.calls += 1
        except Exception as error:
            self.wrong.append(error)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def shop(make_cluster: Any) -> RunningCluster:
    """Workers, and a plugin that none of this concerns."""
    running: RunningCluster = make_cluster(service="shop:Shop", number_workers=WORKERS)
    running.write_module("shop", SERVICE)
    running.write_module("words", PLUGIN)
    running.write_section("plugin:dict", {"run": "words:run"})
    running.start()
    running.wait_group("plugin:dict")
    return running


def _pauses(running: RunningCluster, client: Client) -> int:
    """Return how often a worker has paused a connection with six calls in flight, since it had too many."""

    def count() -> int:
        return sum(worker["limits"]["max_pending_calls"] for worker in running.status()["workers"])

    before = count()
    for future in [client.call_async("sleep", 0.05) for _ in range(6)]:
        future.result(30)
    return count() - before


def test_limits_change_under_load_in_both_directions(shop: RunningCluster) -> None:
    """For a connection of before, and for calls that begin afterwards; no call of others fails, no worker goes."""
    before, plugin = shop.worker_pids(), shop.group("plugin:dict")["processes"][0]["pid"]
    version = 1
    with Load(shop.address) as load, shop.client() as client, shop.control() as control:
        pid = client.call("sleep", 0)
        for _ in range(ROUNDS):
            assert _pauses(shop, client) == 0
            for changes, check in (
                ({"call_timeout": "0.3", "max_pending_calls": "2"}, True),
                ({"call_timeout": "0", "max_pending_calls": "1024"}, False),
            ):
                version += 1
                assert control.call("config.set", changes) == {"version": version}
                slow = client.call_async("sleep", 0.6)
                if check:
                    with pytest.raises(RemoteError, match="TimeoutError"):
                        slow.result(30)
                    assert _pauses(shop, client) > 0
                else:
                    assert slow.result(30) == pid
    assert not load.wrong
    assert load.calls
    assert shop.worker_pids() == before
    assert shop.group("plugin:dict")["processes"][0]["pid"] == plugin
    states = {each["settings_state"] for group in shop.status()["groups"] for each in group["processes"]}
    assert states == {"in step"}
    print(f"{load.calls} calls meanwhile, {version} versions")


def test_a_call_that_runs_keeps_its_limit(shop: RunningCluster) -> None:
    """A shorter one is for those that begin afterwards."""
    with shop.client() as client, shop.control() as control:
        slow = client.call_async("sleep", 0.5)
        client.call("sleep", 0)
        control.call("config.set", {"call_timeout": "0.1"})
        assert slow.result(30)
        with pytest.raises(RemoteError, match="TimeoutError"):
            client.call("sleep", 0.5)


def test_the_time_without_a_heartbeat(shop: RunningCluster) -> None:
    """A method that spins outlives a long one, and is killed at a short one; and the other way round."""
    with shop.control() as control:
        control.call("config.set", {"timeout": "0.5"})
        with shop.client() as client, pytest.raises((RemoteError, ConnectionLost)):
            client.call("spin", 20)
        shop.wait_log("TIMEOUT")
        shop.wait_ready()
        control.call("config.set", {"timeout": "30"})
        with shop.client() as client:
            assert client.call("spin", 1.6) in shop.worker_pids()


def test_logs_change(shop: RunningCluster, tmp_path: Path) -> None:
    """The level in workers, plugins and the master; the access log goes to a file, to the log, and ends."""
    access = tmp_path / "access.log"
    with shop.client() as client, shop.control() as control:
        client.call("say", "one")
        shop.wait_log("said: one")
        assert "at debug" not in shop.log_text()
        control.call("config.set", {"log_level": "debug", "access_log": str(access)})
        client.call("say", "two")
        shop.wait_log("said at debug: two")
        shop.wait_log("looked up")
        wait_until(lambda: "say" in access.read_text())
        lines = access.read_text().count("\n")
        control.call("config.set", {"log_level": "error", "access_log": "on"})
        client.call("say", "three")
        shop.wait_log("say")  # the access log's line
        control.call("config.set", {"log_level": "info", "access_log": "off"})
        assert "said: three" not in shop.log_text()
        client.call("say", "four")
        shop.wait_log("said: four")
        control.call("config.set", {"access_log": str(access)})
        client.call("say", "five")
        wait_until(lambda: access.read_text().count("\n") == lines + 1)
    assert shop.status()["master"]["generation"] == 1


def test_numbers_scale_and_what_workers_were_born_with_replaces_them_alone(shop: RunningCluster) -> None:
    """No call fails; what cannot change is refused with its reason, and is no version."""
    plugin = shop.group("plugin:dict")["processes"][0]["pid"]
    with Load(shop.address) as load:
        assert shop.run("config", "set", f"number_workers={WORKERS + 1}").stdout == "version 2\n"
        assert len(shop.wait_ready(number_workers=WORKERS + 1)["workers"]) == WORKERS + 1
        assert shop.run("config", "set", f"number_workers={WORKERS}").returncode == 0
        before = set(shop.wait_ready(number_workers=WORKERS) and shop.worker_pids())
        begun = time.monotonic()
        assert shop.run("config", "set", "cpu_affinity=auto").stdout == "version 4\n"
        assert time.monotonic() - begun < 30
        wait_until(lambda: not before & set(shop.worker_pids()))
    assert not load.wrong
    shop.wait_ready(number_workers=WORKERS)
    assert all(len(worker["cpus"]) == 1 for worker in shop.status()["workers"])
    assert shop.group("plugin:dict")["processes"][0]["pid"] == plugin
    refused = shop.run("config", "set", "pidfile=/tmp/other.pid", "call_timeout=3")
    assert refused.returncode == 1
    told = f"expected {shop.folder}/cluster.pid until the next start: the master holds the lock of its pidfile"
    assert f"config set: pidfile: found /tmp/other.pid, {told}" in refused.stderr
    assert shop.status()["master"]["settings"] == {"version": 4}


def test_a_reload_changes_them_too_and_the_file_wins(shop: RunningCluster) -> None:
    """What a command had set is shown; a rolling number of a plugin stays as `scale` has made it."""
    pids = shop.worker_pids()
    assert shop.run("scale", "plugin:dict", "2").returncode == 0
    assert shop.run("config", "set", "call_timeout=5", "plugin:dict.timeout=50").returncode == 0
    assert shop.group("plugin:dict")["wanted"] == 2
    shop.write_config(call_timeout=7, max_depth=50)
    told = shop.run("reload", "--plan").stdout
    assert "applied live: call_timeout: 5 (set) -> 7 (file)\n" in told
    assert "applied live: plugin:dict.timeout: 50 (set) -> 0 (default)\n" in told
    assert shop.run("reload").returncode == 0
    assert shop.worker_pids() == pids
    assert shop.run("config", "get", "call_timeout").stdout == "7\n"
    assert shop.status()["master"]["settings"] == {"version": 3}
    assert shop.run("reload").returncode == 0
    assert shop.status()["master"]["settings"] == {"version": 3}


def test_the_log_becomes_json_while_it_runs(make_cluster):
    """Lines of the master, of workers and of calls are objects from then on, and text again later."""
    made = make_cluster(number_workers=1, access_log="on").start()
    with made.control() as control, made.client() as client:
        client.call("echo", "in text")
        control.call("config.set", {"log_format": "json"})
        begin = len(made.log_text())
        client.call("echo", "in JSON")
        with pytest.raises(Exception, match="boom"):
            client.call("fail", "boom")
        made.wait_log('"outcome": "')
        lines = [json.loads(line) for line in made.log_text()[begin:].splitlines()]
        assert {line["method"] for line in lines if "method" in line} <= {"echo", "fail"}
        assert any("boom" in line.get("exception", "") for line in lines)
        control.call("config.set", {"log_format": "text"})
        begin = len(made.log_text())
        client.call("echo", "in text again")
        wait_until(lambda: " echo " in made.log_text()[begin:])
