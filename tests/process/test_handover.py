"""Live connections outlive their workers: promise 1, with callers that number every call and check every reply."""

from __future__ import annotations

import os

import pytest
from callers import Callers

from rpccluster.testing import RunningCluster, wait_until

NOTES = """
import os, time
from rpccluster import Service

class Notes(Service):
    def __init__(self):
        self.file = os.open(os.environ["NOTES_FILE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def note(self, number):
        os.write(self.file, b"%d\\n" % number)
        return number

    def slow(self, seconds):
        time.sleep(seconds)
        return os.getpid()

    def pid(self):
        return os.getpid()

    def echo(self, value):
        return value
"""


@pytest.fixture
def notes(make_cluster, tmp_path, monkeypatch):
    """Makes a cluster whose service writes down each call it runs."""
    monkeypatch.setenv("NOTES_FILE", str(tmp_path / "notes"))

    def make(**options: object) -> RunningCluster:
        running = make_cluster(service="notes:Notes", **options)
        (running.folder / "notes.py").write_text(NOTES)
        return running.start()

    return make


def _assert_each_ran_once(tmp_path, callers: Callers) -> None:
    ran = [int(line) for line in (tmp_path / "notes").read_text().split()]
    assert len(ran) == len(set(ran)), "a call ran twice"
    assert len(ran) == callers.answered


def _pause_for_calls(callers: Callers, calls: int = 500) -> None:
    goal = callers.answered + calls
    wait_until(lambda: callers.answered >= goal or callers.faults, 30, f"{calls} calls answered")


def _serves(running: RunningCluster) -> bool:
    """Whether the master has as many workers as it should. One or another is always being replaced here."""
    status = running.try_status() or {"master": {"state": ""}, "workers": []}
    ready = [worker for worker in status["workers"] if worker["state"] == "ready"]
    return status["master"]["state"] == "running" and len(ready) >= status["master"]["number_workers"]


@pytest.mark.timeout(300)
def test_no_caller_notices_reloads_scaling_recycling_and_upgrades(notes, tmp_path):
    """HUP, TTIN/TTOU, max_requests and USR2: no reset, no call lost, run twice or answered twice."""
    running = notes(number_workers=4, max_requests=200)
    with Callers(running.address, pause=0.003) as callers:
        for _ in range(HUPS):
            assert running.run("reload", "--all").returncode == 0
            _pause_for_calls(callers)
        for step in ("+1", "-1") * SCALINGS:
            assert running.run("scale", step).returncode == 0
            _pause_for_calls(callers)
        for _ in range(UPGRADES):
            old = running.master_pid
            assert running.run("upgrade").returncode == 0
            wait_until(lambda old=old: running.master_pid != old)
            wait_until(lambda: _serves(running), 60, "the new master's workers serve")
            _pause_for_calls(callers)
    assert callers.faults == []
    _assert_each_ran_once(tmp_path, callers)
    print(f"{callers.answered} calls, worst {max(each for _, each in callers.latencies) * 1000:.1f} ms")


FULL_SCALE = bool(os.environ.get("RPCCLUSTER_FULL_SCALE"))
HUPS, SCALINGS, UPGRADES = (20, 20, 5) if FULL_SCALE else (2, 2, 1)
