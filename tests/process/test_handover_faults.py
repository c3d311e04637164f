"""Handing over while processes are killed, stopped and out of descriptors: only what -9 hit is lost, nothing twice."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hardy_callers import SERVICE, HardyCallers

from rpccluster.testing import RunningCluster, wait_until

FULL_SCALE = bool(os.environ.get("RPCCLUSTER_FULL_SCALE"))
KILLS = 100 if FULL_SCALE else 3


@pytest.fixture
def notes(make_cluster, tmp_path, monkeypatch):
    """Makes a cluster whose service writes down each call it runs."""
    monkeypatch.setenv("NOTES_FILE", str(tmp_path / "notes"))

    def make(**options: object) -> RunningCluster:
        running = make_cluster(service="hardy:Notes", **options)
        running.write_module("hardy", SERVICE)
        return running.start()

    return make


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def _stopped(pid: int) -> Iterator[None]:
    """The process stands still, and goes on afterwards unless it has been killed."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def _await_answers(callers: HardyCallers, calls: int = 300) -> None:
    goal = callers.answered + calls
    wait_until(lambda: callers.answered >= goal or callers.faults, 30, f"{calls} calls answered")


def _back_to(running: RunningCluster, number: int) -> list[int]:
    """Scale back; the workers' pids by slot."""
    assert running.run("scale", str(number)).returncode == 0
    running.wait_ready(number_workers=number)
    assert running.run("rebalance").returncode == 0
    return running.worker_pids()


@pytest.mark.timeout(600)
def test_an_adopter_killed_before_it_read_loses_none_of_what_it_was_to_get(notes, tmp_path):
    """What waits in a stopped worker's channel outlives it; only the connections that it served go with it."""
    running = notes(number_workers=3)
    worker_lost = lost = 0
    with HardyCallers(running.address, connections=30) as callers:
        for _ in range(KILLS):
            pids = _back_to(running, 3)
            _await_answers(callers)
            before = len(callers.lost)
            with _stopped(pids[0]):
                running.signal(signal.SIGTTOU)
                wait_until(lambda: running.status()["master"]["in_transit"] > 0, 5, "connections wait for the stopped")
                _kill(pids[0])
            wait_until(lambda: running.status()["master"]["in_transit"] == 0, 5, "all have found another")
            _await_answers(callers)
            assert {loss.owner for loss in callers.lost[before:]} <= {pids[0]}
        worker_lost, lost = callers.worker_lost, len(callers.lost)
    assert callers.faults == []
    callers.assert_each_ran_once(tmp_path / "notes")
    print(f"{KILLS} adopters killed before reading: {lost} connections of their own lost, {worker_lost} WorkerLost")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("slot", [0, 2], ids=["adopter", "donor"])
def test_a_worker_killed_in_the_middle_takes_only_its_own_with_it(notes, tmp_path, slot):
    """At random moments of a handover: what was acknowledged by others survives, calls left behind get WorkerLost."""
    running = notes(number_workers=3)
    moments = random.Random(5)
    with HardyCallers(running.address, connections=30, slow_share=0.1) as callers:
        for _ in range(KILLS):
            pids = _back_to(running, 3)
            _await_answers(callers)
            before = len(callers.lost)
            moment = time.monotonic() + moments.random() * 0.02
            running.signal(signal.SIGTTOU)
            while time.monotonic() < moment:
                pass
            _kill(pids[slot])
            _await_answers(callers)
            wait_until(lambda: running.status()["master"]["in_transit"] == 0, 5, "none is held")
            # what an adopter had acknowledged, its new owner had maybe not answered on
            assert {loss.owner for loss in callers.lost[before:]} <= {pids[slot], *([pids[2], 0] if slot == 0 else [])}
    assert callers.faults == []
    callers.assert_each_ran_once(tmp_path / "notes")
    print(f"{KILLS} kills: {len(callers.lost)} connections lost, {callers.worker_lost} WorkerLost")
