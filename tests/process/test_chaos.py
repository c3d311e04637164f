"""Everything at once, by a seed: reloads, scaling, upgrades, recycling, workers ended, killed and stopped, under load.

``bin/test --chaos SEED`` runs it for a minute; the suite runs a short one.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from hardy_callers import SERVICE, HardyCallers

from rpccluster.master.guard import DESCRIPTORS_KEPT_BACK
from rpccluster.testing import RunningCluster, is_alive, wait_until
from rpccluster.worker.hot.choice import why_not_compiled

CHAOS = os.environ.get("RPCCLUSTER_CHAOS")
SEED = int(CHAOS or 20)
SECONDS = 60.0 if CHAOS else 8.0
CONNECTIONS = 20
MOST_WORKERS = 5
LONGEST_STOP_SECONDS = 3.0
NOTICED_SECONDS = 1.5  # after a kill: connections that its victim had just adopted may be lost that late


class Chaos:
    """Does something to a cluster again and again."""

    def __init__(self, running: RunningCluster, seed: int, share_of_kills: int = 1) -> None:
        self._running = running
        self._deeds = ["reload", "more", "fewer", "more", "fewer", "upgrade", "end", "end", "stop", "stop", "rebalance"]
        self._deeds += ["kill"] * share_of_kills
        self._random = random.Random(seed)
        self._stopped: dict[int, float] = {}
        self.done: Counter[str] = Counter()
        self.killed: dict[int, float] = {}
        self.masters: set[int] = set()
        self.workers: set[int] = set()

    def step(self) -> None:
        """One deed, and whatever is due."""
        for pid in [pid for pid, until in self._stopped.items() if time.monotonic() > until]:
            self._go_on(pid)
        status = self._running.try_status()
        if status is None:
            return
        self.masters.add(status["master"]["pid"])
        self.workers.update(worker["pid"] for worker in status["workers"])
        deed = self._random.choice(self._deeds)
        self.done[deed] += 1
        getattr(self, f"_{deed}")(status)

    def finish(self) -> None:
        """Let everybody go on."""
        for pid in list(self._stopped):
            self._go_on(pid)

    def _reload(self, status: dict) -> None:
        os.kill(status["master"]["pid"], signal.SIGHUP)

    def _more(self, status: dict) -> None:
        if status["master"]["number_workers"] < MOST_WORKERS:
            os.kill(status["master"]["pid"], signal.SIGTTIN)

    def _fewer(self, status: dict) -> None:
        os.kill(status["master"]["pid"], signal.SIGTTOU)

    def _upgrade(self, status: dict) -> None:
        os.kill(status["master"]["pid"], signal.SIGUSR2)

    def _rebalance(self, status: dict) -> None:
        with contextlib.suppress(Exception), self._running.control(timeout=0.2) as control:
            control.call("rebalance")

    def _end(self, status: dict) -> None:
        self._signal_one(status, signal.SIGTERM)

    def _kill(self, status: dict) -> None:
        pid = self._signal_one(status, signal.SIGKILL)
        self._stopped.pop(pid, None)
        self.killed[pid] = time.monotonic()

    def _stop(self, status: dict) -> None:
        pid = self._signal_one(status, signal.SIGSTOP)
        self._stopped[pid] = time.monotonic() + self._random.random() * LONGEST_STOP_SECONDS

    def _signal_one(self, status: dict, signum: int) -> int:
        pid = int(self._random.choice([worker["pid"] for worker in status["workers"]] or [0]))
        with contextlib.suppress(ProcessLookupError):
            if pid:
                os.kill(pid, signum)
        return pid

    def _go_on(self, pid: int) -> None:
        del self._stopped[pid]
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    def explains(self, owner: int, at: float) -> bool:
        """Whether a connection that ``owner`` answered last may have been lost then."""
        return owner in self.killed or any(at - NOTICED_SECONDS < killed <= at for killed in self.killed.values())


@pytest.mark.timeout(240)
@pytest.mark.parametrize("crash_safe", [False, True], ids=["lost connections", "no lost connection"])
def test_only_what_was_killed_is_lost(make_cluster, tmp_path, monkeypatch, crash_safe):
    """No caller of another worker notices, no call runs twice, nothing hangs, and nobody is left behind.

    With ``crash_safe`` the callers of a killed worker keep their connections, too.
    """
    if crash_safe and why_not_compiled():
        pytest.skip("the compiled engine alone notes what is needed")
    print(f"chaos by seed {SEED}, for {SECONDS:g} s")
    monkeypatch.setenv("NOTES_FILE", str(tmp_path / "notes"))
    options = {"number_workers": 3, "max_requests": 3000, "max_requests_jitter": 1000, "crash_safe": crash_safe}
    running = make_cluster(service="hardy:Notes", **options)
    running.write_module("hardy", SERVICE)
    running.start()
    chaos = Chaos(running, SEED, share_of_kills=4 if crash_safe else 1)
    with HardyCallers(running.address, connections=CONNECTIONS, seed=SEED, large_share=0.02) as callers:
        wait_until(lambda: sum(callers.owners.values()) == CONNECTIONS, what="all have been read from")
        end_at = time.monotonic() + SECONDS
        while time.monotonic() < end_at and not callers.faults:
            chaos.step()
            time.sleep(chaos._random.random() * 0.4)
        chaos.finish()
        _await_peace(running)
        wait_until(lambda: callers.oldest_pending_seconds() < 1 or callers.faults, what="no call is left to hang")
    _report(chaos, callers)
    assert callers.faults == []
    assert [loss for loss in callers.lost if crash_safe or not chaos.explains(loss.owner, loss.at)] == []
    assert callers.errors["WorkerRetired"] == 0
    callers.assert_each_ran_once(tmp_path / "notes")
    _assert_nothing_is_left(running, chaos, copies=CONNECTIONS if crash_safe else 0)


def _await_peace(running: RunningCluster) -> None:
    """One master, its workers, and nothing on its way."""
    running.wait_ready(60)
    wait_until(lambda: (running.try_status() or {"master": {"in_transit": 1}})["master"]["in_transit"] == 0)


def _assert_nothing_is_left(running: RunningCluster, chaos: Chaos, copies: int) -> None:
    status = running.wait_ready(60)
    present = {status["master"]["pid"], *(worker["pid"] for worker in status["workers"])}
    left = (chaos.masters | chaos.workers) - present
    wait_until(lambda: not any(is_alive(pid) for pid in left), what="no process of former times is left")
    with contextlib.suppress(AssertionError):
        wait_until(lambda: not _descriptors_too_many(running, copies))
    assert _descriptors_too_many(running, copies) == []
    assert running.run("stop").returncode == 0
    wait_until(lambda: not any(is_alive(pid) for pid in present), what="all have ended")


def _descriptors_too_many(running: RunningCluster, copies: int) -> list[str]:
    """Which process has more open than it should; workers may still come and go, after ``max_requests``.

    A master that has copies of sockets has a ledger of each worker, and both ends of the channel for the copies.
    """
    status = running.try_status()
    if status is None:
        return ["no status"]
    workers = status["workers"]
    each = 7 if copies else 4
    most = 18 + DESCRIPTORS_KEPT_BACK + each * len(workers) + copies  # with warden, lead, counters
    bounds = {status["master"]["pid"]: most}
    bounds.update({worker["pid"]: 20 + (2 if copies else 0) + worker["connections"] for worker in workers})
    return [f"{pid}: {_descriptors(pid)} > {most}" for pid, most in bounds.items() if len(_descriptors(pid)) > most]


def _descriptors(pid: int) -> list[str]:
    found = []
    with contextlib.suppress(FileNotFoundError):  # it has just ended
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(FileNotFoundError):
                found.append(os.readlink(f"/proc/{pid}/fd/{name}"))
    return found


def _report(chaos: Chaos, callers: HardyCallers) -> None:
    worst = max(seconds for _, seconds in callers.latencies)
    print(f"{dict(chaos.done)}; {callers.answered} calls, worst {worst:.2f} s; lost {len(callers.lost)}")
    print(f"{len(callers.uncertain)} uncertain; {dict(callers.errors)}; {len(chaos.masters)} masters")
    assert Path(chaos._running.log).exists()
