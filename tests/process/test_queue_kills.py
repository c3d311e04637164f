"""Queues under kill -9: of the keeper, of consumers, of the master, while producers and consumers work.

What each peer knows stands in its file (`queue_peers.py`), and at the end the files are read: no put that was answered
is lost, none is there twice, and no item is given out after its ack was answered. RPCCLUSTER_FULL_SCALE=1 makes it 64
producers, 64 consumers, and hundreds of kills.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from keepers import Peer, address, keeper
from patience import within

from rpccluster.testing import RunningCluster, is_alive, wait_until

MakeCluster = Callable[..., RunningCluster]

HERE = Path(__file__).resolve().parent
IS_FULL = os.environ.get("RPCCLUSTER_FULL_SCALE") == "1"
PEERS = 64 if IS_FULL else 3  # producers, and as many consumers
PUTS = 1500 if IS_FULL else 400  # of each producer
KEEPER_KILLS, CONSUMER_KILLS, MASTER_KILLS = (300, 1000, 20) if IS_FULL else (4, 6, 1)
SECONDS = 1200.0 if IS_FULL else 120.0
if IS_FULL:
    pytestmark = pytest.mark.timeout(SECONDS)
#: Of many attempts one may be burnt with each end of a consumer; none with that of the keeper.
QUEUE = {"queue:jobs": {"max_attempts": 100_000}}


@dataclass
class Field:
    """The peers of one queue, and their files."""

    cluster: RunningCluster
    folder: Path
    path: str
    producers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    consumers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def start(self, kind: str, *more: object) -> subprocess.Popen[bytes]:
        """Start a peer with a file of its own."""
        file = self.folder / f"{kind}-{next(self.numbers)}"
        command = [sys.executable, str(HERE / "queue_peers.py"), kind, f"unix://{self.path}", "jobs", str(file)]
        return subprocess.Popen([*command, *map(str, more)])

    def kill_consumer(self, chance: random.Random) -> None:
        """Kill one, and start another one in its place."""
        number = chance.randrange(len(self.consumers))
        self.consumers[number].kill()
        self.consumers[number].wait()
        self.consumers[number] = self.start("consumer")

    def stop(self) -> None:
        """End all peers."""
        for process in [*self.producers, *self.consumers]:
            process.kill()
            process.wait()

    def lines(self) -> Iterator[list[str]]:
        """Yield all events, as words."""
        for file in sorted(self.folder.iterdir()):
            yield from (line.split() for line in file.read_text().splitlines())


@pytest.fixture
def made_field(make_cluster: MakeCluster, tmp_path: Path) -> Iterator[Field]:
    """Producers and consumers that have begun."""
    cluster = make_cluster(sections=QUEUE, number_workers=1).start()
    folder = tmp_path / "peers"
    folder.mkdir()
    found = Field(cluster, folder, address(cluster).partition("://")[2])
    found.producers = [found.start("producer", f"p{number}", PUTS) for number in range(PEERS)]
    found.consumers = [found.start("consumer") for _ in range(PEERS)]
    yield found
    found.stop()


class Knocking:
    """Connects to the keeper again and again, while a master lives. ``refused`` counts; ``longest`` is in seconds."""

    def __init__(self, path: str) -> None:
        self.refused = 0
        self.longest = 0.0
        self._path = path
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Knocking:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._is_over.is_set():
            began = time.monotonic()
            while not self._is_answered():
                pass
            self.longest = max(self.longest, time.monotonic() - began)
            time.sleep(0.01)

    def _is_answered(self) -> bool:
        try:
            peer = Peer(self._path)
        except OSError:
            self.refused += 1
            return True
        with contextlib.closing(peer), contextlib.suppress(OSError):
            return bool(peer.call("rpc.ping"))
        return False


def check(found: Field) -> dict[str, int]:
    """Judge what the peers have written down. Returns how much of it there was."""
    put: dict[str, str] = {}
    ids: dict[str, set[str]] = defaultdict(set)
    given: dict[str, list[float]] = defaultdict(list)
    acked: dict[str, float] = {}
    for what, at, *words in found.lines():
        if what == "P":
            put[words[1]] = words[0]
            ids[words[1]].add(words[0])
        elif what == "G":
            given[words[0]].append(float(at))
            ids[words[2]].add(words[0])
        elif what == "A":
            assert words[0] not in acked, f"{words[0]} was acked twice"
            acked[words[0]] = float(at)
    assert {value: found for value, found in ids.items() if len(found) > 1} == {}, "put twice"
    assert [value for value, id_ in put.items() if id_ not in given] == [], "lost"
    late = [id_ for id_, at in acked.items() if max(given[id_]) > at]
    assert late == [], "given out after its ack"
    return {"put": len(put), "given": sum(map(len, given.values())), "acked": len(acked)}


def finish(found: Field) -> None:
    """Wait until all is put and all is done."""
    wait_until(lambda: all(process.poll() is not None for process in found.producers), SECONDS)
    assert [process.returncode for process in found.producers] == [0] * PEERS
    with contextlib.closing(Peer(found.path)) as peer:
        assert peer.end(peer.begin("queue.join", "jobs"), SECONDS) is True
        stats = peer.call("queue.stats", "jobs")
    assert [stats[name] for name in ("ready", "delayed", "leased", "dead")] == [0, 0, 0, 0]


def test_kills_of_the_keeper_and_of_consumers(made_field: Field) -> None:
    """Nothing is lost or doubled; nobody is refused while the master lives, and the keeper is back within a second."""
    chance, last = random.Random(19), 0
    kills = ["keeper"] * KEEPER_KILLS + ["consumer"] * CONSUMER_KILLS
    chance.shuffle(kills)
    with Knocking(made_field.path) as knocking:
        for kill in kills:
            if kill == "consumer":
                made_field.kill_consumer(chance)
                time.sleep(chance.random() * 0.05)
                continue
            last = keeper(made_field.cluster, last)
            time.sleep(chance.random() * 0.2)
            os.kill(last, signal.SIGKILL)
        finish(made_field)
    told = check(made_field)
    assert told["put"] == PEERS * PUTS
    assert knocking.refused == 0
    print(f"{told}, longest {knocking.longest:.3f} s")
    assert knocking.longest < within(1.0)


def test_kills_of_the_master(made_field: Field) -> None:
    """The same, over its next start."""
    chance = random.Random(7)
    for _ in range(MASTER_KILLS):
        time.sleep(0.3 + chance.random())
        pids = [keeper(made_field.cluster), made_field.cluster.master_pid]
        os.kill(pids[1], signal.SIGKILL)
        wait_until(lambda pids=pids: not any(map(is_alive, pids)))
        made_field.cluster.start()
    finish(made_field)
    told = check(made_field)
    print(told)
    assert told["put"] == PEERS * PUTS


def test_the_keepers_death_burns_no_attempt(make_cluster: MakeCluster, tmp_path: Path) -> None:
    """Items of which one attempt is all are never dead, though the keeper is killed while consumers have them."""
    cluster = make_cluster(sections={"queue:jobs": {"max_attempts": 1}, "queues": {"session_grace": 30}}).start()
    folder = tmp_path / "peers"
    folder.mkdir()
    found = Field(cluster, folder, address(cluster).partition("://")[2])
    found.producers = [found.start("producer", f"p{number}", PUTS) for number in range(PEERS)]
    found.consumers = [found.start("consumer") for _ in range(PEERS)]
    try:
        last = 0
        for _ in range(KEEPER_KILLS):
            last = keeper(cluster, last)
            time.sleep(0.1)
            os.kill(last, signal.SIGKILL)
        finish(found)
        assert check(found)["put"] == PEERS * PUTS
    finally:
        found.stop()
