"""Attackers with wrong keys beside a good load: nothing of theirs runs, and the others are served as before."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from bench.build import NoCompilerError, build
from rpccluster import Client
from rpccluster.protocol.codec import pack_request
from rpccluster.testing import RunningCluster

FULL_SCALE = bool(os.environ.get("RPCCLUSTER_FULL_SCALE"))
SECONDS = 20.0 if FULL_SCALE else 1.5
RATE = 300  # attackers a second
KEYS = ["old-key-of-19-bytes", "new-key-of-19-bytes"]

SERVICE = """
class Counting:
    def __init__(self):
        self.forbidden = 0

    def good(self, value):
        return value

    def bad(self):
        self.forbidden += 1

    def count(self):
        return self.forbidden
"""


@pytest.fixture
def attacked(make_cluster: Callable[..., RunningCluster]) -> RunningCluster:
    """A cluster of one worker with a key."""
    running = make_cluster(service="counting:Counting", number_workers=1)
    running.write_module("counting", SERVICE)
    write_keys(running, KEYS[0])
    running.write_config(authkey_file=running.folder / "keys")
    return running.start()


def write_keys(running: RunningCluster, *keys: str) -> None:
    """Write the file of keys."""
    path = running.folder / "keys"
    path.write_text("\n".join(keys))
    path.chmod(0o600)


def attackers(running: RunningCluster, data: bytes, seconds: float) -> subprocess.Popen[str]:
    """Start attackers that send ``data``, as kindly as processes can be."""
    try:
        program = build("storm")
    except NoCompilerError as error:
        pytest.skip(str(error))
    path = running.folder / "bytes"
    path.write_bytes(data)
    port = running.address.rpartition(":")[2]
    command = [str(program), "--port", port, "--bytes", str(path), "--rate", str(RATE), "--seconds", str(seconds)]
    return subprocess.Popen(["nice", "-n", "19", *command], stdout=subprocess.PIPE, text=True)


def p99(running: RunningCluster, seconds: float, key: str) -> float:
    """Call for so many seconds, each time on time; return the duration that 99 % of the calls do not exceed."""
    took = []
    with Client(running.address, authkey=key, timeout=30) as client:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            began = time.monotonic()
            assert client.call("good", len(took)) == len(took)
            took.append(time.monotonic() - began)
            time.sleep(0.002)
    return sorted(took)[len(took) * 99 // 100]


def handshake(*, proof: bytes) -> bytes:
    """A challenge that is answered with ``proof``, whatever it is, and a call behind it."""
    steps = [("rpc.authenticate", [1, "default", b"n" * 32]), ("rpc.authenticate", [2, proof]), ("bad", [])]
    return b"".join(pack_request(number, *step) for number, step in enumerate(steps))


ATTACKS: dict[str, Any] = {
    "a wrong proof": handshake(proof=b"\0" * 32),
    "a short proof": handshake(proof=b"x"),
    "no challenge": pack_request(1, "bad", []),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_attackers_with_wrong_keys_run_nothing_and_delay_nobody(attacked: RunningCluster, attack: str) -> None:
    """Each is closed; the good load goes on without an error, at full scale within twice its undisturbed p99."""
    undisturbed = p99(attacked, SECONDS / 2, KEYS[0])
    storm = attackers(attacked, ATTACKS[attack], SECONDS)
    disturbed = p99(attacked, SECONDS, KEYS[0])
    told = json.loads(storm.communicate(timeout=60)[0])
    assert told["closed"] == told["tried"] > RATE * SECONDS * (0.5 if FULL_SCALE else 0.02), told
    with Client(attacked.address, authkey=KEYS[0]) as client:
        assert client.call("count") == 0
    print(f"p99 {undisturbed * 1e3:.2f} ms undisturbed, {disturbed * 1e3:.2f} ms beside {told}")
    if FULL_SCALE:
        assert disturbed < 2 * undisturbed + 0.001


def test_a_rotation_under_load_drops_nobody(attacked: RunningCluster) -> None:
    """Connections go on over it, beside attackers; those that come use whichever key the file has then."""
    is_over, faults, calls = threading.Event(), [], [0]

    def call() -> None:
        with Client(attacked.address, authkey=KEYS[0], timeout=30) as client:
            first = client._connection
            while not is_over.is_set():
                try:
                    client.call("good", 1)
                    calls[0] += 1
                except Exception as error:
                    faults.append(error)
                    return
                first = first or client._connection
            assert client._connection is first

    threads = [threading.Thread(target=call) for _ in range(4)]
    storm = attackers(attacked, ATTACKS["a wrong proof"], 2.0)
    for thread in threads:
        thread.start()
    for keys in ([KEYS[0], KEYS[1]], [KEYS[1]], [KEYS[1], KEYS[0]], [KEYS[1]]) * (5 if FULL_SCALE else 1):
        write_keys(attacked, *keys)
        assert attacked.run("reload").returncode == 0
        before = calls[0]
        with Client(attacked.address, authkey=KEYS[1], timeout=30) as client:
            while calls[0] == before and not faults:
                client.call("good", 2)
    is_over.set()
    for thread in threads:
        thread.join()
    storm.communicate(timeout=60)
    assert faults == [] and calls[0] > 10
