"""The processes of pools under a real master: started behind the dispatcher, kept, scaled, replaced, stopped, shown."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any, Callable

import pytest

from rpccluster.testing import RunningCluster, is_alive, title_of, wait_until

CHECKOUT = Path(__file__).resolve().parents[2]
MakeCluster = Callable[..., RunningCluster]


@pytest.fixture
def made(make_cluster: MakeCluster) -> RunningCluster:
    """A cluster of one worker and a pool of two processes and a spare, which has not started."""
    cluster = make_cluster(number_workers=1)
    cluster.write_section("pool:numbers", {"processes": 2, "targets": "math:sqrt"})
    return cluster


def rows(cluster: RunningCluster) -> list[dict[str, Any]]:
    """The ready processes of the pool."""
    processes = cluster.group("pool:numbers").get("processes", [])
    return [process for process in processes if process["state"] == "ready"]


def pids(cluster: RunningCluster, number: int, without: tuple[int, ...] = ()) -> list[int]:
    """The pids of that many ready processes, none of which is among ``without``, by their slots."""

    def found() -> list[int]:
        present = [process["pid"] for process in rows(cluster)]
        return present if len(present) == number and not {*present} & {*without} else []

    return wait_until(found)


def test_a_pool_has_its_processes_and_a_spare(made: RunningCluster) -> None:
    """In slots beyond what is wanted; a killed one is replaced at once, and nothing is left at the end."""
    made.start()
    present = pids(made, 3)
    assert [row["is_spare"] for row in rows(made)] == [False, False, True]
    assert (made.group("pool:numbers")["kind"], made.group("pool:numbers")["wanted"]) == ("task", 2)
    assert title_of(present[0]) == "rpccluster: pool numbers [rpccluster]"
    os.kill(present[1], signal.SIGKILL)
    after = pids(made, 3, (present[1],))
    assert after[:2] == [present[0], present[2]]
    made.signal(signal.SIGTERM)
    assert made.wait() == 0
    assert not any(is_alive(pid) for pid in after)
    log = made.log_text()
    assert log.index("Dispatcher ready") < log.index("Booting pool numbers")
    assert log.index("Worker exiting") < log.rindex("Pool numbers exiting") < log.index("Dispatcher exiting")


def test_a_reload_touches_what_has_changed(made: RunningCluster) -> None:
    """Live options keep the pids; HUP and other targets replace them one by one; a section that goes ends them."""
    made.start()
    present = pids(made, 3)
    made.write_section("pool:numbers", {"processes": 2, "targets": "math:sqrt", "timeout": 5, "max_tasks": 9})
    assert made.run("reload").returncode == 0
    assert pids(made, 3) == present
    assert made.run("scale", "pool:numbers", "1").returncode == 0
    assert pids(made, 2)[0] == present[0]
    made.signal(signal.SIGHUP)
    renewed = pids(made, 3, tuple(present))
    made.write_section("pool:numbers", {"processes": 2, "targets": "math"})
    assert made.run("reload").returncode == 0
    again = pids(made, 3, tuple(renewed))
    made.write_section("pool:numbers", None)
    assert made.run("reload").returncode == 0
    wait_until(lambda: not any(is_alive(pid) for pid in again))


def test_targets_that_cannot_be_imported_are_told(made: RunningCluster) -> None:
    """The cluster serves; the pool waits, with the reason."""
    made.write_section("pool:numbers", {"processes": 1, "targets": "no_such_module", "restart_delay": 30})
    made.start()
    wait_until(lambda: made.group("pool:numbers").get("state") == "waiting")
    assert "No module named 'no_such_module'" in made.group("pool:numbers")["reason"]


def test_an_upgrade_replaces_the_processes(made: RunningCluster) -> None:
    """All are the new master's."""
    made.start()
    present = pids(made, 3)
    assert made.run("upgrade").returncode == 0
    pids(made, 3, tuple(present))
    wait_until(lambda: not any(is_alive(pid) for pid in present))


JOBS = """
import rpccluster

settings = {"price": rpccluster.Setting(float, 1.0)}


def price():
    return rpccluster.settings["price"], rpccluster.settings.version
"""

SHOP = """
import rpccluster

settings = {"price": rpccluster.Setting(float, 1.0)}


class Shop:
    def price(self):
        return rpccluster.pool("prices").submit("jobs:price").result()
"""


def test_a_task_sees_the_settings_in_force(make_cluster: MakeCluster) -> None:
    """The version is that with which it begins; no process is replaced for it."""
    sections = {"settings": {"price": 2}, "pool:prices": {"processes": 1, "targets": "jobs"}}
    made = make_cluster(service="shop:Shop", number_workers=1, sections=sections)
    made.write_module("jobs", JOBS)
    made.write_module("shop", SHOP)
    made.start()
    with made.client() as client:
        price, version = client.call("price")
        assert price == 2.0
        wait_until(lambda: all(each["state"] == "ready" for each in made.group("pool:prices")["processes"]))  # a spare
        before = [process["pid"] for process in made.group("pool:prices")["processes"]]
        assert made.run("config", "set", "settings.price=3").returncode == 0
        assert client.call("price") == [3.0, version + 1]
    assert [process["pid"] for process in made.group("pool:prices")["processes"]] == before
    assert made.group("pool:prices")["processes"][0]["settings_version"] == version + 1


def test_the_shipped_example_runs(make_cluster: MakeCluster) -> None:
    """etc/pools.ini."""
    made = make_cluster()
    shipped = (CHECKOUT / "etc" / "pools.ini").read_text()
    made.config.write_text(shipped.replace("%(here)s/../run/pools.sock", str(made.options["control_socket"])))
    made.start(are_ready=False)
    wait_until(lambda: made.try_status(), 30)
    made.wait_group("pool:numbers")
    assert "numbers" in made.run("pool", "list").stdout
    assert made.run("stop").returncode == 0
    assert made.wait() == 0
