"""Kills workers of a running cluster, one after another."""

from __future__ import annotations

import os
import random
import signal
import time

from patience import within

from rpccluster.testing import RunningCluster

__all__ = ["Killer"]

PAUSE_SECONDS = 0.2
LOOK_SECONDS = 0.02
READY_SECONDS = within(10.0)  # generous: a start takes its share of a CPU that all others use


class Killer:
    """Kills a random worker that is ready, again and again, and sees when its slot has a successor."""

    def __init__(self, running: RunningCluster, seed: int = 6) -> None:
        self._running = running
        self._random = random.Random(seed)
        self._awaited: dict[int, tuple[float, int]] = {}  # by slot: when its worker was killed, and who that was
        self.killed: set[int] = set()
        self.ready_after: list[float] = []

    def run(self, seconds: float, kills: int = 0) -> None:
        """Kill for so long, and at least so many workers, then wait for the last successor."""
        end_at = next_at = time.monotonic() + PAUSE_SECONDS
        end_at += seconds
        while time.monotonic() < end_at or len(self.killed) < kills or self._awaited:
            ready = self._look()
            if ready and next_at < time.monotonic() and (time.monotonic() < end_at or len(self.killed) < kills):
                self._kill(*self._random.choice(ready))
                next_at += PAUSE_SECONDS
            time.sleep(LOOK_SECONDS)

    def _look(self) -> list[tuple[int, int]]:
        """Slot and pid of each worker that is ready; notes those that are successors."""
        workers = self._running.status()["workers"]
        ready = [(worker["slot"], worker["pid"]) for worker in workers if worker["state"] == "ready"]
        now = time.monotonic()
        for slot, pid in ready:
            if slot in self._awaited and self._awaited[slot][1] != pid:
                self.ready_after.append(now - self._awaited.pop(slot)[0])
        assert all(now - killed_at < READY_SECONDS for killed_at, _ in self._awaited.values())
        return [(slot, pid) for slot, pid in ready if pid not in self.killed]

    def _kill(self, slot: int, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        self.killed.add(pid)
        self._awaited[slot] = (time.monotonic(), pid)
