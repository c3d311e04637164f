"""Promise 4: what hostile peers send costs neither the others' time nor memory that stays.

The attacks are in `tests/attacks.py`. Shown with ``-rP``: what each cost.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import psutil
import pytest
from attacks import ATTACKS, MIB, Sender
from lines import Line, lines_to

from rpccluster.testing import RunningCluster, running_cluster, wait_until

FULL_SCALE = bool(os.environ.get("RPCCLUSTER_FULL_SCALE"))
CONNECTIONS = 100 if FULL_SCALE else 20
FLOOD_SECONDS = 10.0 if FULL_SCALE else 2.0
GENEROUS_SECONDS = 60.0
SETTLED_SECONDS = 6.5  # without a change: what is freed goes back to the kernel after five
MOST_BYTES_EACH = 16 * MIB
LOOK_SECONDS = 0.005


class GoodClient(threading.Thread):
    """Calls on four connections all the time, notes how long each call took, and checks each result."""

    def __init__(self, address: str) -> None:
        super().__init__(daemon=True)
        self._address = address
        self._stopping = threading.Event()
        self.latencies: list[float] = []
        self.fault: BaseException | None = None

    def run(self) -> None:
        try:
            with lines_to(self._address, 4) as lines:
                while not self._stopping.wait(LOOK_SECONDS):
                    for line in lines:
                        self._call(line)
        except BaseException as error:
            self.fault = error

    def _call(self, line: Line) -> None:
        number = len(self.latencies)
        seconds, result = line.timed_call("echo", number)
        assert result == number
        line.replies.clear()
        self.latencies.append(seconds)

    def stop(self) -> None:
        """Raises what went wrong."""
        self._stopping.set()
        self.join(GENEROUS_SECONDS)
        if self.fault is not None:
            raise self.fault

    def told(self) -> str:
        """The figures so far, which begin anew."""
        taken, self.latencies = sorted(self.latencies), []
        p50, p99 = (taken[len(taken) * part // 100] * 1e3 for part in (50, 99))
        return f"{len(taken)} good calls: p50 {p50:.2f} ms, p99 {p99:.2f} ms, worst {taken[-1] * 1e3:.0f} ms"


class Memory:
    """The resident memory of the workers, each; ``highest`` is the most they had together since `begin`."""

    def __init__(self, pids: list[int]) -> None:
        self._workers = [psutil.Process(pid) for pid in pids]
        self._watching = threading.Event()
        self.highest = 0

    def now(self) -> list[int]:
        return [worker.memory_info().rss for worker in self._workers]

    def settled(self) -> list[int]:
        """What they have once that changes no more."""
        seen, since = self.now(), time.monotonic()
        while time.monotonic() - since < SETTLED_SECONDS:
            time.sleep(0.1)
            now = self.now()
            if max(abs(one - other) for one, other in zip(now, seen)) > MIB // 2:
                seen, since = now, time.monotonic()
        return seen

    def begin(self) -> threading.Thread:
        """Watch, until `end`."""
        self.highest = 0
        self._watching.set()
        thread = threading.Thread(target=self._watch, daemon=True)
        thread.start()
        return thread

    def _watch(self) -> None:
        while self._watching.is_set():
            self.highest = max(self.highest, sum(self.now()))
            time.sleep(LOOK_SECONDS)

    def end(self) -> None:
        self._watching.clear()


class Attacked:
    """A cluster that has served all that is large once, so that its workers have the size they keep."""

    def __init__(self, running: RunningCluster) -> None:
        self.running = running
        self.address = running.address
        self.pids = running.worker_pids()
        for pid in self.pids:
            with running.client_of(pid) as client:
                client.call("echo", [{}] * MIB)
                client.call("echo", [0.5] * MIB)
        self.memory = Memory(self.pids)
        self.at_rest = self.memory.settled()

    def limits(self, name: str) -> int:
        """How often a limit was reached."""
        return sum(worker["limits"][name] for worker in self.running.status()["workers"])

    def is_at_rest(self) -> bool:
        """Whether each worker has what it had at first, or hardly more."""
        return all(now <= 1.1 * first for now, first in zip(self.memory.now(), self.at_rest))


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    """One for all attacks: what one of them leaves behind shows in the next."""
    with running_cluster(tmp_path_factory.mktemp("attacked"), number_workers=2) as running:
        yield Attacked(running)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_harms_nobody_else(attacked: Attacked, name: str) -> None:
    """Each connection is answered or closed; memory is bounded, and comes back; others are served."""
    attack = ATTACKS[name]
    counted = attacked.limits(attack.limit) if attack.limit else 0
    good = GoodClient(attacked.address)
    good.start()
    wait_until(lambda: len(good.latencies) > 200 or good.fault, 20, "the good client is served")
    undisturbed = good.told()
    before, watch = sum(attacked.memory.now()), attacked.memory.begin()
    outcome = Sender(
        attacked.address, name, CONNECTIONS, FLOOD_SECONDS if attack.is_endless else GENEROUS_SECONDS
    ).outcome(GENEROUS_SECONDS + 30)
    attacked.memory.end()
    watch.join()
    disturbed = good.told()
    good.stop()
    grown = (attacked.memory.highest - before) / CONNECTIONS
    began = time.monotonic()
    wait_until(attacked.is_at_rest, 30, f"memory is as at first: {attacked.memory.now()}, {attacked.at_rest}")
    back = time.monotonic() - began
    print(f"{outcome}\nundisturbed {undisturbed}\nmeanwhile   {disturbed}")
    print(f"{grown / MIB:.2f} MiB a connection, back after {back:.1f} s: {attacked.memory.now()}")
    assert outcome.faults == []
    assert (outcome.answered, outcome.closed) == ((0, CONNECTIONS) if not attack.earns() else (CONNECTIONS, 0))
    assert grown < max(MOST_BYTES_EACH, 1.5 * len(attack.sends()))
    assert attacked.running.worker_pids() == attacked.pids
    assert not attack.limit or attacked.limits(attack.limit) - counted == CONNECTIONS
