"""Versions: each has a number, an author and what it changed; numbers go on after any end of the master."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from rpccluster import Client, RemoteError, RPCClusterError
from rpccluster.testing import RunningCluster, is_alive, wait_until

FULL_SCALE = bool(os.environ.get("RPCCLUSTER_FULL_SCALE"))
KILLS, WORKERS = (100, 4) if FULL_SCALE else (2, 2)

SERVICE = """
import rpccluster

class Shop:
    settings = {"price": rpccluster.Setting(int, 0)}

    def settings_check(self, new, changed):
        if new["price"] < 0:
            raise ValueError("a price below nothing")

    def seen(self):
        return [rpccluster.settings.version, rpccluster.settings["price"]]
"""


@pytest.fixture
def shop(make_cluster: Any) -> RunningCluster:
    """Not started yet; the price in its file is 1."""
    running: RunningCluster = make_cluster(service="shop:Shop", number_workers=WORKERS)
    running.write_module("shop", SERVICE)
    running.write_section("settings", {"price": 1})
    return running


def _history(running: RunningCluster) -> Any:
    return json.loads((running.folder / "cluster.pid.history").read_text())


def _told(running: RunningCluster) -> list[tuple[Any, ...]]:
    done = running.run("config", "history", "--json")
    assert done.returncode == 0, done.stderr
    versions = json.loads(done.stdout)["versions"]
    return [(each["version"], each["uid"], each["command"], each["changes"]) for each in versions]


def _value(running: RunningCluster, key: str) -> Any:
    return running.control().call("config.get", key)["values"][key]["value"]


def _versions(running: RunningCluster) -> set[tuple[int, str]]:
    processes = [process for group in running.status()["groups"] for process in group["processes"]]
    return {(each["settings_version"], each["settings_state"]) for each in processes}


def test_who_has_changed_what_and_the_way_back(shop: RunningCluster) -> None:
    """A rollback is a new version with old values; a reload that changes nothing is none."""
    shop.start()
    uid = os.getuid()
    control = shop.control()
    assert control.call("config.set", {"settings.price": "2", "call_timeout": "9"}) == {"version": 2}
    with pytest.raises(RemoteError, match="found an unknown setting"):
        control.call("config.set", {"settings.colour": "red"})
    assert control.call("config.set", {"settings.price": "3"}) == {"version": 3}
    shop.write_config(max_depth=50)
    control.call("reload")
    control.call("reload")
    assert control.call("config.rollback", 2) == {"version": 5}
    assert (_value(shop, "settings.price"), _value(shop, "max_depth")) == ("2", "100")
    assert control.call("config.rollback") == {"version": 6}
    assert _told(shop) == [
        (
            2,
            uid,
            "config set settings.price=2 call_timeout=9",
            {"settings.price": ["1", "2"], "call_timeout": ["0", "9"]},
        ),
        (3, uid, "config set settings.price=3", {"settings.price": ["2", "3"]}),
        (
            4,
            uid,
            "reload",
            {"max_depth": ["100", "50"], "call_timeout": ["9", "0"], "settings.price": ["3", "1"]},
        ),
        (
            5,
            uid,
            "config rollback 2",
            {"max_depth": ["50", "100"], "call_timeout": ["0", "9"], "settings.price": ["1", "2"]},
        ),
        (
            6,
            uid,
            "config rollback 4",
            {"max_depth": ["100", "50"], "call_timeout": ["9", "0"], "settings.price": ["2", "1"]},
        ),
    ]
    shown = shop.run("config", "history").stdout
    assert f"Z, uid {uid}: config set settings.price=3\n    settings.price: 2 -> 3\n" in shown
    assert shop.run("config", "rollback", "6").stdout == "version 6\n"
    done = shop.run("config", "rollback", "0")
    assert (done.returncode, "found the version 0, expected one of 1 to 6" in done.stderr) == (1, True)
    control.close()
    assert _versions(shop) == {(6, "in step")}


def test_versions_and_what_was_set_stay_over_an_upgrade(shop: RunningCluster) -> None:
    """Also when the file on disk holds what every process would refuse. Numbers and the way back go on."""
    shop.start()
    assert shop.control().call("config.set", {"settings.price": "2", "call_timeout": "9"}) == {"version": 2}
    shop.write_section("settings", {"price": -1})
    with pytest.raises(RemoteError, match="a price below nothing"):
        shop.control().call("reload")
    shop.control().call("upgrade")
    shop.wait_ready()
    wait_until(lambda: _versions(shop) == {(2, "in step")})
    assert _value(shop, "call_timeout") == "9"
    with shop.client() as client:
        assert client.call("seen") == [2, 2]
    assert shop.control().call("config.set", {"settings.price": "3"}) == {"version": 3}
    shop.control().call("upgrade")
    assert shop.control().call("config.rollback", 1) == {"version": 4}
    assert _value(shop, "call_timeout") == "0"
    with shop.client() as client:
        assert client.call("seen") == [4, 1]
    assert [number for number, *_ in _told(shop)] == [2, 3, 4]


class Seeing:
    """A thread that reads the version all the time, and keeps the highest that it has seen."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._thread = threading.Thread(target=self._look)
        self.most = 0
        self.wrong: list[Any] = []

    def __enter__(self) -> Seeing:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()

    def _look(self) -> None:
        try:
            with Client(self._address) as client:
                while True:
                    version, price = client.call("seen")
                    if price not in (1, version):  # the file's at the start, else the number itself
                        self.wrong.append((version, price))
                    self.most = max(self.most, version)
        except RPCClusterError:
            pass  # the cluster was killed


@pytest.mark.timeout(1800 if FULL_SCALE else 120)
def test_the_master_is_killed(shop: RunningCluster) -> None:
    """At any moment of a push: what any client has seen is in the history, and the next start has a higher number.

    The values are the file's then, in all processes.
    """
    for _ in range(KILLS):
        shop.start()
        address, master = shop.address, shop.master_pid
        before = shop.status()["master"]["settings"]["version"]
        with Seeing(address) as seeing:
            timer = threading.Timer(random.uniform(0.05, 0.5), os.kill, (master, signal.SIGKILL))
            timer.start()
            committed = _push_until_it_ends(shop, before)
            timer.join()
        assert not seeing.wrong
        wait_until(lambda master=master: not is_alive(master))  # type: ignore[misc]
        shop.wait()
        known = _history(shop)["version"] if (shop.folder / "cluster.pid.history").exists() else before
        assert known >= max(seeing.most, committed)
        shop.start()
        version = shop.status()["master"]["settings"]["version"]
        assert version > known or version == known == 1
        assert _versions(shop) == {(version, "in step")}
        with shop.client() as client:
            assert client.call("seen") == [version, 1]
        shop.stop()


def _push_until_it_ends(running: RunningCluster, version: int) -> int:
    """Push one version after another, each with its number as the price. Returns the last one that was answered."""
    try:
        with running.control() as control:
            while True:
                version = control.call("config.set", {"settings.price": str(version + 1)})["version"]
    except RPCClusterError:
        return version


def test_a_start_says_what_the_file_has_changed(shop: RunningCluster) -> None:
    """It is a version then, of which a rollback is possible."""
    shop.start()
    assert shop.run("config", "set", "settings.price=2").stdout == "version 2\n"
    shop.stop()
    shop.write_config(call_timeout=5)
    shop.start()
    assert shop.status()["master"]["settings"] == {"version": 3}
    (_, (number, _, command, changes)) = _told(shop)
    assert (number, command, changes) == (3, "start", {"settings.price": ["2", "1"], "call_timeout": ["0", "5"]})
    assert shop.run("config", "rollback", "2").stdout == "version 4\n"
    assert shop.run("config", "get", "settings.price").stdout == "2\n"


def test_without_a_writable_history_versions_count_all_the_same(shop: RunningCluster) -> None:
    """It is told once for each."""
    (shop.folder / "cluster.pid.history").mkdir()
    shop.start()
    shop.wait_log("Cannot use the history of the versions")
    assert shop.run("config", "set", "settings.price=2").stdout == "version 2\n"
    shop.wait_log("The history lacks version 2: cannot write")
    assert [number for number, *_ in _told(shop)] == [2]


def test_it_stands_beside_the_configuration_without_a_pidfile(make_cluster: Any) -> None:
    """And only its owner may read it: it has the values."""
    running: RunningCluster = make_cluster(pidfile=None)
    running.start()
    assert running.run("config", "set", "call_timeout=7").stdout == "version 2\n"
    file = Path(f"{running.config}.history")
    assert json.loads(file.read_text())["versions"][0]["changes"] == {"call_timeout": ["0", "7"]}
    assert file.stat().st_mode & 0o777 == 0o600
