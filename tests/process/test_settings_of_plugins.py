"""A change of settings and plugins that refuse it, hang, end, fail afterwards, or cannot be asked."""

from __future__ import annotations

from typing import Any

import pytest

from rpccluster import RemoteError
from rpccluster.testing import RunningCluster, wait_until

JOBS = """
import os
import sys
import time
import rpccluster

class Job:
    settings = {"mood": rpccluster.Setting(str, "good")}

    def settings_check(self, new, changed):
        if new["mood"] == "bad":
            raise ValueError("no such mood")
        if new["mood"] == "exit":
            sys.exit(3)
        if new["mood"] == "gone":
            os._exit(3)
        while new["mood"] == "asleep":
            time.sleep(0.1)

    def settings_changed(self, old, new, changed):
        if new["mood"] == "unhappy":
            raise ValueError("after the switch")

    def run(self):
        while True:
            sum(range(1000))

def becomes_another():
    os.execvp("sleep", ["sleep", "600"])

def closes_all(plugin):
    os.closerange(3, 256)
    time.sleep(600)
"""


@pytest.fixture
def jobs(make_cluster: Any, request: pytest.FixtureRequest) -> RunningCluster:
    """A plugin of a class, and two that cannot be asked."""
    seconds = getattr(request, "param", 60)
    running: RunningCluster = make_cluster(service=None, bind=None, number_workers=None, settings_timeout=seconds)
    running.write_module("jobs", JOBS)
    running.write_section("settings", {"mood": "good"})
    for name, run in (("job", "Job"), ("program", "becomes_another"), ("closed", "closes_all")):
        running.write_section(f"plugin:{name}", {"run": f"jobs:{run}", "stop_timeout": 1})
    running.start()
    for name in ("job", "program", "closed"):
        running.wait_group(f"plugin:{name}")
    return running


def _job(running: RunningCluster) -> tuple[int, int]:
    """Its pid and its version."""
    (process,) = running.group("plugin:job")["processes"]
    return process["pid"], process["settings_version"]


@pytest.mark.parametrize(
    ("jobs", "mood", "reason"),
    [
        (60, "bad", " refuses: settings_check refuses mood (config set): ValueError: no such mood"),
        (60, "exit", " refuses: settings_check refuses mood (config set): SystemExit: 3"),
        (60, "gone", " ended before it had voted on mood (config set)"),
        (4, "asleep", ", on mood (config set)"),
    ],
    indirect=["jobs"],
)
def test_one_that_refuses_leaves_everything_as_it_was(jobs: RunningCluster, mood: str, reason: str) -> None:
    """It is named, with key and place. Those that cannot be asked hold nothing up; the next push goes through."""
    pid, _ = _job(jobs)
    with jobs.control() as control:
        with pytest.raises(RemoteError) as refused:
            control.call("config.set", {"settings.mood": mood})
        assert f"plugin job (pid: {pid}, slot: 0){reason}" in str(refused.value)
        jobs.wait_group("plugin:job")
        assert control.call("config.get", "settings.mood")["values"]["settings.mood"]["value"] == "good"
        wait_until(lambda: _job(jobs)[1] == 1)
        assert control.call("config.set", {"settings.mood": "fine"}) == {"version": 2}
        assert _job(jobs)[1] == 2


def test_one_that_fails_afterwards_is_replaced(jobs: RunningCluster) -> None:
    """By one that is born with the new version; the others stay."""
    pid, _ = _job(jobs)
    others = [jobs.group(f"plugin:{name}")["processes"][0]["pid"] for name in ("program", "closed")]
    assert jobs.control().call("config.set", {"settings.mood": "unhappy"}) == {"version": 2}
    jobs.wait_log("settings_changed failed: told of mood (config set)")
    wait_until(lambda: _job(jobs)[0] not in (pid, None))
    jobs.wait_group("plugin:job")
    wait_until(lambda: _job(jobs)[1] == 2)
    assert [jobs.group(f"plugin:{name}")["processes"][0]["pid"] for name in ("program", "closed")] == others
