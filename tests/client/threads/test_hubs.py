"""One client for the greenlets and native threads of a process that gevent has patched: a connection for each hub."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ..servers import Server

HEAD = """
import gevent.monkey
gevent.monkey.patch_all()
import concurrent.futures, gevent, os, sys, time
from gevent.threadpool import ThreadPool
from rpccluster.client import Client, Pool
from rpccluster.errors import Lost, NotSent

address, face = sys.argv[1:]
client = Client(address, timeout=20) if face == "client" else Pool([address], connections=2, timeout=20)
start_thread = gevent.monkey.get_original("_thread", "start_new_thread")
pool = ThreadPool(1)

def in_thread(work, *args):
    "Run it in a native thread that gevent does not know."
    box = []
    def run():
        try:
            box.append((work(*args), None))
        except BaseException as error:
            box.append((None, error))
    start_thread(run, ())
    return box

def outcome(box):
    with gevent.Timeout(20):
        while not box:
            gevent.sleep(0.005)
    value, error = box[0]
    if error is not None:
        raise error
    return value
"""

EVERYBODY = """
def by_batch(value):
    with client.batch() as batch:
        batch.call("linger", 0.002, value)
    return batch.results()[0]

WAYS = [
    lambda value: client.call("linger", 0.002, value), by_batch,
    lambda value: client.call_async("linger", 0.002, value).result(10),
    lambda value: client.notify("echo", value) or client.call("echo", value),
]

def many(caller):
    return sum(way([caller, number]) != [caller, number] for number in range(15) for way in WAYS)

threads = [in_thread(many, caller) for caller in range(3)]
pooled = pool.spawn(many, 3)
greenlets = [gevent.spawn(many, caller) for caller in range(4, 7)]
assert [outcome(thread) for thread in threads] == [0] * 3
with gevent.Timeout(20):
    assert pooled.get() == 0
    gevent.joinall(greenlets, raise_error=True)
assert [greenlet.value for greenlet in greenlets] == [0] * 3
print("done")
"""

STRANGERS = """
client.call("echo", "connected")
pending = [client.call_async("sleep", 60) for _ in range(3)]
assert outcome(in_thread(pending[0].cancel))
late = client.call_async("linger", 0.05, "late")
assert outcome(in_thread(late.result, 10)) == "late"
for number in range(30):  # threads that come, call and go: what they leave is cleared away
    assert outcome(in_thread(client.call, "echo", number)) == number
if face == "client":
    assert len(client._twins) < 5, client._twins
assert pool.spawn(client.call, "echo", "pooled").get() == "pooled"
closed = in_thread(client.close)
outcome(closed)
with gevent.Timeout(10):
    assert all(isinstance(future.exception(), Lost) for future in pending[1:])
for way in (lambda: client.call("echo", 1), lambda: pool.spawn(client.call, "echo", 1).get()):
    try:
        way()
    except NotSent:
        continue
    raise AssertionError("a closed client called")
print("done")
"""


@pytest.mark.parametrize("face", ["client", "pool"])
@pytest.mark.parametrize("script", [EVERYBODY, STRANGERS], ids=["everybody", "strangers"])
def test_greenlets_and_native_threads(server: Server, script: str, face: str) -> None:
    """Every call of every native thread and greenlet has its own result, however it is made.

    A native thread may cancel another one's futures, wait for them, and close the client; threads that have ended
    leave nothing behind.
    """
    done = subprocess.run(
        [sys.executable, "-c", HEAD + script, server.address, face],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent.parent.parent)},
        stdout=subprocess.PIPE,
        timeout=60,
        check=True,
    )
    assert done.stdout == b"done\n"
