"""`reload_on_change`: an edited file is reloaded by itself, once, and only when it has come to rest."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rpccluster.testing import RunningCluster, wait_until

RELOADED = "Reloaded the configuration"
JOB = """
import rpccluster
settings = {"price": rpccluster.Setting(int, 0)}

def run(plugin):
    plugin.stopping.wait()
"""


@pytest.fixture
def watched(make_cluster: Callable[..., RunningCluster]) -> RunningCluster:
    """A cluster of a plugin, which is not started yet."""
    running = make_cluster(service=None, bind=None, number_workers=None, reload_on_change=True)
    running.write_module("job", JOB)
    running.write_section("plugin:job", {"run": "job:run"})
    running.write_section("settings", {"price": "1"})
    return running


def _price(running: RunningCluster) -> Any:
    return running.control().call("config.get", "settings.price")["values"]["settings.price"]["value"]


def _is_one_reload(watched: RunningCluster, last: int) -> bool:
    """Write a hundred prices, and check that one reload brings the last; false if the file had rest meanwhile."""
    version = watched.status()["master"]["settings"]["version"]
    reloads, longest, at = watched.log_text().count(RELOADED), 0.0, time.monotonic()
    for price in range(last - 99, last + 1):
        watched.write_section("settings", {"price": str(price)})
        longest, at = max(longest, time.monotonic() - at), time.monotonic()
    wait_until(lambda: _price(watched) == str(last))
    wait_until(lambda: watched.log_text().count(RELOADED) > reloads)
    if longest > 0.5:  # a second without a change is rest
        return False
    assert watched.log_text().count(RELOADED) == reloads + 1
    assert watched.status()["master"]["settings"]["version"] == version + 1
    return True


def test_a_hundred_changes_are_one_reload(watched: RunningCluster) -> None:
    """Of the last one. A refused value changes nothing. The file's values win over what was set meanwhile."""
    watched.start()
    watched.wait_group("plugin:job")
    last = next(last for last in range(101, 1000, 100) if _is_one_reload(watched, last))
    watched.write_section("settings", {"price": "much"})
    watched.wait_log("found 'much', expected a whole number")
    assert _price(watched) == str(last)
    watched.write_section("settings", {"price": "5"})
    wait_until(lambda: _price(watched) == "5")
    watched.control().call("config.set", {"settings.price": "6"})
    watched.write_section("plugin:more", {"run": "job:run"})
    watched.wait_group("plugin:more")
    assert _price(watched) == "5"  # the file's


def test_a_swapped_link_is_noticed(watched: RunningCluster, tmp_path: Path) -> None:
    """Twice in a row, as an orchestrator mounts new versions of files."""
    mount = tmp_path / "mount"
    versions = [mount / f"..{number}" for number in range(3)]
    text = watched.config.read_text()
    for number, folder in enumerate(versions):
        folder.mkdir(parents=True)
        (folder / "cluster.ini").write_text(text.replace("price = 1", f"price = {number + 1}"))
    (mount / "..data").symlink_to(versions[0].name)
    (mount / "cluster.ini").symlink_to("..data/cluster.ini")
    watched.config.unlink()
    watched.config.symlink_to(mount / "cluster.ini")
    watched.start()
    for number in (1, 2):
        (mount / "..data_tmp").symlink_to(versions[number].name)
        (mount / "..data_tmp").rename(mount / "..data")
        shutil.rmtree(versions[number - 1])
        wait_until(lambda number=number: _price(watched) == str(number + 1))  # type: ignore[misc]
