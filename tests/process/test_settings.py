"""Settings: the service's own values reach its processes by kind, and faulty ones never start one."""

from __future__ import annotations

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
        assert set(client.call("rpc.discover")) == {"seen", "rpc.ping", "rpc.discover"}


def test_a_reload_brings_the_files_values(shop: RunningCluster) -> None:
    """It is a new version, in new workers; a reload that changes nothing is none."""
    shop.write_section("settings", {"price": "2"})
    shop.start()
    first = _seen(shop)
    shop.write_section("settings", {"price": "3"})
    told = shop.control().call("reload")
    assert told["plan"]["lines"][0] == "changed: workers, settings.price: 2 -> 3"
    wait_until(lambda: not is_alive(first["pid"]))  # it may take a last connection
    seen = _seen(shop)
    assert (seen["values"]["price"], seen["version"]) == (3.0, 2)
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
    assert _seen(shop) == before


PLUGIN = """
import rpccluster

settings = {"price": rpccluster.Setting(float, 1.0)}

def run(plugin):
    print("price", plugin.settings["price"] + 1, rpccluster.settings.version, flush=True)
    plugin.stopping.wait()
"""


def test_a_plugin_reads_them_too(make_cluster: Any) -> None:
    """By its own declaration; a change replaces it."""
    running: RunningCluster = make_cluster(service=None, bind=None, number_workers=None)
    running.write_module("prices", PLUGIN)
    running.write_section("settings", {"price": "2"})
    running.write_section("plugin:prices", {"run": "prices:run"})
    running.start(are_ready=False)
    running.wait_log("price 3.0 1")
    running.write_section("settings", {"price": "4"})
    running.control().call("reload")
    running.wait_log("price 5.0 2")
