"""Promise 4: what hostile peers send costs neither the others' time nor memory that stays.

The attacks are in `tests/attacks.py`. ``pytest -rP`` shows what each cost.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
from attacks import ATTACKS, Sender
from bystander import MIB, GoodClient, Memory

from rpccluster.testing import RunningCluster, running_cluster, wait_until

FULL_SCALE = bool(os.environ.get("RPCCLUSTER_FULL_SCALE"))
CONNECTIONS = 100 if FULL_SCALE else 20
FLOOD_SECONDS = 10.0 if FULL_SCALE else 2.0
GENEROUS_SECONDS = 60.0
MOST_BYTES_EACH = 16 * MIB
ARENAS_BYTES = 8 * MIB  # Python's arenas are of 1 MiB; a few are kept by something that happened to be put into them
FILLS_ARENAS = "array keys that collide"  # 12 times in a row on a busy machine: 43 MiB at first, then 50, 58 at most
WATCHED_CALLS = 2000 if FULL_SCALE else 200  # of the good client: at first, and from the attack's beginning on


class Attacked:
    """A cluster that has served what is large once, so that its workers have the size they keep."""

    def __init__(self, running: RunningCluster) -> None:
        self.running = running
        self.address = running.address
        self.pids = running.worker_pids()
        for pid in self.pids:
            with running.client_of(pid) as client:
                client.call("echo", [{}] * MIB)
                client.call("echo", [0.5] * MIB)
        Sender(self.address, FILLS_ARENAS, CONNECTIONS, GENEROUS_SECONDS).outcome(GENEROUS_SECONDS + 30)
        self.memory = Memory(self.pids)
        self.at_rest = self.memory.settled()

    def count(self, limit: str) -> int:
        """How often a limit was reached."""
        return sum(worker["limits"][limit] for worker in self.running.status()["workers"] if limit)

    def is_at_rest(self) -> bool:
        """Whether each worker has the memory it had at first, or hardly more; the same first for all attacks."""
        return all(now <= 1.1 * first + ARENAS_BYTES for now, first in zip(self.memory.now(), self.at_rest))


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    """One for all attacks: what one of them leaves behind shows in the next."""
    with running_cluster(tmp_path_factory.mktemp("attacked"), number_workers=2) as running:
        yield Attacked(running)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_harms_nobody_else(attacked: Attacked, name: str) -> None:
    """Each connection is answered or closed; memory is bounded, and comes back; others are served."""
    attack, memory = ATTACKS[name], attacked.memory
    counted = attacked.count(attack.limit)
    seconds = FLOOD_SECONDS if attack.is_endless else GENEROUS_SECONDS
    with GoodClient(attacked.address) as good:
        good.await_calls(WATCHED_CALLS)
        undisturbed, before = good.figures(), sum(memory.now())
        with memory.watched():
            outcome = Sender(attacked.address, name, CONNECTIONS, seconds).outcome(GENEROUS_SECONDS + 30)
        good.await_calls(WATCHED_CALLS)
        disturbed = good.figures()
    each, over_at = (memory.highest - before) / CONNECTIONS, time.monotonic()
    print(f"{outcome}\nundisturbed {undisturbed}\nmeanwhile   {disturbed}\n{each / MIB:.2f} MiB a connection")
    wait_until(attacked.is_at_rest, 30, f"memory is as at first, {attacked.at_rest}, found {memory.now()}")
    print(f"back after {time.monotonic() - over_at:.1f} s: {attacked.at_rest} bytes at first, now {memory.now()}")
    assert outcome.faults == []
    assert (outcome.answered, outcome.closed) == ((CONNECTIONS, 0) if attack.earns() else (0, CONNECTIONS))
    assert each < max(MOST_BYTES_EACH, 1.5 * len(attack.sends()))
    assert attacked.running.worker_pids() == attacked.pids
    assert attacked.count(attack.limit) - counted == (CONNECTIONS if attack.limit else 0)
