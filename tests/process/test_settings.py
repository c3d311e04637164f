"""Settings: the service's own values reach its processes by kind, and faulty ones never start one."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from rpccluster.testing import RunningCluster, is_alive, wait_until

SERVICE = """
import os

import rpccluster

TEXTS = dict(rpccluster.settings)

class Shop:
    settings = {
        "price": rpccluster.Setting(float, 1.0, "what one costs"),
        "Names": rpccluster.Setting(list, ["Anna"], "who works here"),
        "open": rpccluster.Setting(bool, True),
    }

    def __init__(self):
        self.at_first = rpccluster.settings["price"]

    def settings_check(self, new, changed):
        self.asked = sorted(changed)
        if new["price"] < 0:
            raise ValueError("a price below nothing")

    def settings_changed(self, old, new, changed):
        pass

    def seen(self):
        values = rpccluster.settings
        return {"version": values.version, "values": dict(values), "first": self.at_first, "texts": TEXTS,
                "asked": self.asked, "pid": os.getpid()}
"""

OWN_METHODS = ("rpc.ping", "rpc.health", "rpc.discover", "rpc.call", "rpc.cancel")


@pytest.fixture
def shop(make_cluster: Any) -> RunningCluster:
    """A cluster of one worker, not started, that declares its settings."""
    running: RunningCluster = make_cluster(service="shop:Shop", number_workers=1)
    running.write_module("shop", SERVICE)
    return running


def _seen(running: RunningCluster) -> dict[str, Any]:
    with running.client() as client:
        found: dict[str, Any] = client.call("seen")
        return found


def test_a_service_reads_its_values_by_their_kinds(shop: RunningCluster) -> None:
    """Those that the file lacks stand at their defaults; hooks and declaration are no methods."""
    shop.write_section("settings", {"price": "2.5", "Names": "Berta, Carl"})
    shop.start()
    seen = _seen(shop)
    assert seen["values"] == {"price": 2.5, "Names": ["Berta", "Carl"], "open": True}
    assert (seen["version"], seen["first"], seen["asked"]) == (1, 2.5, ["Names", "open", "price"])
    assert seen["texts"] == {"price": "2.5", "Names": "Berta, Carl"}  # while its module was imported
    assert shop.status()["master"]["settings"] == {"version": 1}
    with shop.client() as client:
        assert set(client.call("rpc.discover")) == {"seen", *OWN_METHODS}


def test_a_reload_brings_the_files_values(shop: RunningCluster) -> None:
    """It is a new version, in the same workers; a reload that changes nothing is none."""
    shop.write_section("settings", {"price": "2"})
    shop.start()
    first = _seen(shop)
    shop.write_section("settings", {"price": "3"})
    told = shop.control().call("reload")
    assert told["plan"]["lines"] == ["applied live: settings.price: 2 -> 3", "kept: 1 process"]
    assert told["generation"] == 1
    seen = _seen(shop)
    assert (seen["values"]["price"], seen["version"], seen["pid"]) == (3.0, 2, first["pid"])
    shop.write_config(accept_lock=False)
    shop.write_section("settings", {"price": "4"})
    told = shop.control().call("reload")
    assert told["plan"]["live"] == {"settings.price": ["3", "4"]}
    assert told["plan"]["changed"] == {"workers": {"accept_lock": ["true", "false"]}}
    wait_until(lambda: not is_alive(first["pid"]))  # it may take a last connection
    seen = _seen(shop)
    assert (seen["values"]["price"], seen["version"]) == (4.0, 3)
    shop.control().call("reload")
    assert {**_seen(shop), "pid": 0} == {**seen, "pid": 0}


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"price": "much"}, ": price: found 'much', expected a number"),
        (
            {"prise": "1"},
            ": prise: found an unknown setting, expected one that the service declares; did you mean price?",
        ),
        ({"price": "-1"}, "settings_check refuses: ValueError: a price below nothing"),
    ],
)
def test_a_refused_value_is_a_fault_of_the_start(shop: RunningCluster, settings: dict[str, str], fault: str) -> None:
    """And of --check-config; a running cluster keeps what it has."""
    shop.write_section("settings", settings)
    for arguments in (["--check-config"], []):
        ended = shop.run(*arguments)
        assert (ended.returncode, fault in ended.stderr) == (4, True), ended.stderr
    shop.write_section("settings", {"price": "1"})
    shop.start()
    before = _seen(shop)
    shop.write_section("settings", settings)
    shop.signal(1)
    shop.wait_log("Reload failed")
    assert {**_seen(shop), "asked": []} == {**before, "asked": []}


PLUGIN = """
import rpccluster

settings = {"price": rpccluster.Setting(float, 1.0)}

def run(plugin):
    while not plugin.stopping.wait(0.1):
        print("price", plugin.settings["price"] + 1, rpccluster.settings.version, flush=True)
"""


def test_a_plugin_reads_them_too(make_cluster: Any) -> None:
    """By its own declaration; a reload changes them while it runs."""
    running: RunningCluster = make_cluster(service=None, bind=None, number_workers=None)
    running.write_module("prices", PLUGIN)
    running.write_section("settings", {"price": "2"})
    running.write_section("plugin:prices", {"run": "prices:run"})
    running.start(are_ready=False)
    running.wait_log("price 3.0 1")
    running.write_section("settings", {"price": "4"})
    running.control().call("reload")
    running.wait_log("price 5.0 2")


def test_check_config_knows_what_a_plugin_declares(make_cluster: Any) -> None:
    """One that cannot be imported is no fault of the configuration."""
    running: RunningCluster = make_cluster(service=None, bind=None, number_workers=None)
    running.write_module("prices", PLUGIN)
    running.write_section("settings", {"price": "much"})
    running.write_section("plugin:other", {"run": "nothing_such:run"})
    assert running.run("--check-config").returncode == 0
    running.write_section("plugin:prices", {"run": "prices:run"})
    done = running.run("--check-config")
    assert done.returncode == 4
    assert done.stderr.startswith(f"rpccluster: {running.config}:")
    assert done.stderr.endswith(": price: found 'much', expected a number\n")


PUSHED = """
import os
import time

import gevent
import rpccluster

class Shop:
    settings = {"price": rpccluster.Setting(float, 1.0), "mood": rpccluster.Setting(str, "good")}
    told = []

    def settings_check(self, new, changed):
        mood = new["mood"]
        if mood == "bad":
            raise ValueError("no such mood")
        if mood == "gone":
            os._exit(3)
        if mood == "exit":
            raise SystemExit(3)
        while mood == "asleep":
            gevent.sleep(0.1)

    def settings_changed(self, old, new, changed):
        self.told.append([old["price"], new["price"], sorted(changed)])
        if new["mood"] == "unhappy":
            raise ValueError("after the switch")

    def twice(self, until):
        first = rpccluster.settings.version, rpccluster.settings["price"]
        while until and not os.path.exists(until):
            gevent.sleep(0.01)
        spawned = gevent.spawn(lambda: rpccluster.settings.version).get()
        return [first, (rpccluster.settings.version, rpccluster.settings["price"]), spawned]

    def pid(self):
        return os.getpid()

    def look(self):
        return [os.getpid(), rpccluster.settings.version, rpccluster.settings["price"], self.told]
"""

BUSY = """
import time
import rpccluster

settings = {"price": rpccluster.Setting(float, 1.0), "mood": rpccluster.Setting(str, "good")}

def settings_changed(old, new, changed):
    print("changed to", new["price"], flush=True)

def run(plugin):
    time.sleep(600)
"""


@pytest.fixture
def pushed(make_cluster: Any, request: pytest.FixtureRequest) -> RunningCluster:
    """Three workers and a plugin that sleeps."""
    seconds = getattr(request, "param", 60)
    running: RunningCluster = make_cluster(service="pushed:Shop", number_workers=3, settings_timeout=seconds)
    running.write_module("pushed", PUSHED)
    running.write_module("busy", BUSY)
    running.write_section("settings", {"price": "1"})
    running.write_section("plugin:busy", {"run": "busy:run", "stop_timeout": 1})
    running.start()
    running.wait_group("plugin:busy")
    return running


def _versions(running: RunningCluster) -> set[int]:
    return {process["settings_version"] for group in running.status()["groups"] for process in group["processes"]}


def test_a_push_reaches_every_process_and_replaces_none(pushed: RunningCluster) -> None:
    """Hooks are told; a running call goes on with the version that it began with; what boots later has the new one."""
    before = pushed.worker_pids()
    with pushed.client() as client:
        slow = client.call_async("twice", str(pushed.folder / "may_end"))
        for pid in before:
            with pushed.client_of(pid) as other:
                assert other.call("look")[1:3] == [1, 1.0]
        wait_until(lambda: sum(worker["active_calls"] for worker in pushed.status()["workers"]) >= 1)
        done = pushed.run("config", "set", "settings.price=2.5", "-c", str(pushed.config))
        assert (done.returncode, done.stdout) == (0, "version 2\n"), done.stderr
        (pushed.folder / "may_end").touch()
        assert slow.result() == [[1, 1.0], [1, 1.0], 1]
        assert client.call("twice", "") == [[2, 2.5], [2, 2.5], 2]
    assert _versions(pushed) == {2}
    assert pushed.worker_pids() == before
    pushed.wait_log("changed to 2.5")
    for pid in before:
        with pushed.client_of(pid) as client:
            assert client.call("look") == [pid, 2, 2.5, [[1.0, 2.5, ["price"]]]]
    os.kill(before[0], signal.SIGKILL)
    wait_until(lambda: len(set(pushed.worker_pids()) - {before[0]}) == 3)
    pushed.wait_ready()
    for pid in pushed.worker_pids():
        with pushed.client_of(pid) as client:
            assert client.call("look")[:3] == [pid, 2, 2.5]
    assert pushed.run("config", "get", "settings.price", "-c", str(pushed.config)).stdout == "2.5\n"
    assert pushed.run("config", "diff", "-c", str(pushed.config)).stdout == "settings.price: 2.5 -> 1\n"


@pytest.mark.parametrize(
    ("pushed", "change", "reason"),
    [
        (60, "settings.mood=bad", "refuses: settings_check refuses mood (config set): ValueError: no such mood"),
        (60, "settings.mood=exit", "refuses: settings_check refuses mood (config set): SystemExit: 3"),
        (60, "settings.mood=gone", "ended before it had voted on mood (config set)"),
        (4, "settings.mood=asleep", "no vote within settings_timeout (4 s) from worker (pid: "),
        (60, "settings.price=much", "refuses: config set: price: found 'much', expected a number"),
        (60, "settings.prise=1", "an unknown setting, expected one that the service declares; did you mean price?"),
        (60, "daemonize=true", "config set: daemonize: found true, expected false until the next start: a process"),
    ],
    indirect=["pushed"],
)
def test_one_refusal_leaves_everything_as_it_was(pushed: RunningCluster, change: str, reason: str) -> None:
    """Process, key and reason are named; the next push goes through."""
    done = pushed.run("config", "set", change, "-c", str(pushed.config))
    assert (done.returncode, reason in done.stderr) == (1, True), done.stderr
    pushed.wait_ready()
    wait_until(lambda: _versions(pushed) == {1})
    assert pushed.control().call("config.get", "settings.price")["values"]["settings.price"]["value"] == "1"
    assert pushed.control().call("config.set", {"settings.price": "7"}) == {"version": 2}
    assert _versions(pushed) == {2}


def test_who_raises_after_the_switch_is_replaced(pushed: RunningCluster) -> None:
    """By one of the same version."""
    before = set(pushed.worker_pids())
    pushed.control().call("config.set", {"settings.mood": "unhappy"})
    wait_until(lambda: not before & set(pushed.worker_pids()))
    pushed.wait_ready()
    wait_until(lambda: _versions(pushed) == {2})


def test_a_reload_brings_the_files_values_back(pushed: RunningCluster) -> None:
    """The plan shows what was set by hand."""
    pushed.control().call("config.set", {"settings.price": "3"})
    told = pushed.run("reload", "-c", str(pushed.config))
    assert "settings.price: 3 (set) -> 1 (file)" in told.stdout
    wait_until(lambda: _versions(pushed) == {3})


def test_a_value_finds_its_way_into_the_file(pushed: RunningCluster) -> None:
    """Its bytes alone; a start and a reload read it. What cannot be written changes nothing anywhere."""
    text = pushed.config.read_text().replace("price = 1", "price:  1 \n# its comment")
    pushed.config.write_text(text)
    done = pushed.run("config", "set", "--write", "settings.price=2.5", "settings.mood=50%", "-c", str(pushed.config))
    assert (done.returncode, done.stdout) == (0, "version 2\n"), done.stderr
    expected = text.replace("price:  1 \n# its comment\n", "price:  2.5 \n# its comment\n")
    assert expected in pushed.config.read_text().replace("mood:  50%%\n", "")
    assert "mood:  50%%" in pushed.config.read_text()
    assert _versions(pushed) == {2}
    assert pushed.run("config", "diff", "-c", str(pushed.config)).stdout == ""
    found = pushed.control().call("config.get", "settings.price")["values"]["settings.price"]
    assert found["value"] == "2.5"
    assert found["origin"].startswith(f"{pushed.config}:")
    assert pushed.run("reload", "--plan", "-c", str(pushed.config)).stdout.startswith("kept: ")
    before = pushed.config.read_bytes()
    for change in ("settings.mood=bad", "settings.price=x"):
        assert pushed.run("config", "set", "--write", change, "-c", str(pushed.config)).returncode == 1
    pushed.config.write_bytes(before.replace(b"2.5", b"9"))
    done = pushed.run("config", "set", "--write", "settings.price=3", "-c", str(pushed.config))
    assert "price: found '9', expected '2.5': it has changed since it was read; reload first" in done.stderr
    os.link(pushed.config, pushed.folder / "other")
    done = pushed.run("config", "set", "--write", "settings.mood=fine", "-c", str(pushed.config))
    assert "it has a second hard link" in done.stderr
    assert pushed.config.read_bytes() == before.replace(b"2.5", b"9")
    assert _versions(pushed) == {2}


def test_an_upgrade_keeps_what_is_in_force(pushed: RunningCluster) -> None:
    """Also where the file has a value by now that the service refuses; versions go on counting."""
    pushed.control().call("config.set", {"settings.price": "3"})
    pushed.write_section("settings", {"price": "1", "mood": "bad"})
    old = pushed.master_pid
    assert pushed.run("upgrade", "-c", str(pushed.config)).returncode == 0
    wait_until(lambda: not is_alive(old))
    pushed.wait_ready()
    wait_until(lambda: _versions(pushed) == {2})
    with pushed.client() as client:
        assert client.call("twice", "")[0] == [2, 3.0]
    pushed.control().call("config.set", {"settings.price": "4"})
    assert _versions(pushed) == {3}
