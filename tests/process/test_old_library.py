"""The original msgpack-rpc-python 0.4.1, unchanged, as a client of a running cluster."""

from __future__ import annotations

import json
import subprocess

import pytest

from rpccluster.address import parse_address
from rpccluster.testing import wait_until

SERVICE = """
from gevent.event import Event
from rpccluster.demo import Demo

class It(Demo):
    def __init__(self):
        self.noted = []
        self.may_go = Event()
    def hold(self):
        self.may_go.wait()
        return "let go"
    def let_go(self):
        self.may_go.set()
    def note(self, *what):
        self.noted.append(list(what))
    def told(self):
        return self.noted
    def data(self):
        return b"\\x00\\xff"
    def kind(self, value):
        return type(value).__name__
"""

# What the old library can do; each function's result, or what it raised, is printed as JSON by its name.
CALLER = """
import json, sys, time
import msgpackrpc
from msgpackrpc import error

def connect(**options):
    return msgpackrpc.Client(msgpackrpc.Address(sys.argv[1], int(sys.argv[2])), **options)

client = connect(timeout=60, unpack_encoding="utf-8")  # else it takes every str for bytes

def results():
    text, long = u"gr\\u00fc\\u00df", "x" * 70000
    return [client.call("sum", 1, 2), client.call("echo", text), client.call("echo", [1, {"a": 2.5}, True]),
            client.call("echo", long) == long, client.call("echo", 2 ** 64 - 1), client.call("sum")]

def nil():
    return [client.call("echo", None), client.call("note", "from a call")]

def errors():
    found = []
    for method, params in (("fail", ("boom",)), ("nope", ()), ("_private", ()), ("__class__", ()), ("sleep", ())):
        try:
            client.call(method, *params)
        except error.RPCError as raised:
            found.append([type(raised).__name__, str(raised)])
    return found

def notify():
    client.notify("note", 1, "two")
    client.notify("nope")
    return client.call("sum", 1)

def asynchronous():
    slow = client.call_async("hold")
    calls = [client.call_async("sum", number, number) for number in range(50)]
    wrong = client.call_async("fail", "later")
    found = [call.get() for call in calls]
    was_waiting = slow.result is None
    client.call("let_go")
    wrong.join()
    return [found, was_waiting, slow.get(), str(wrong.error)]

def callbacks():
    seen = []
    call = client.call_async("sum", 20, 22)
    call.attach_callback(lambda future: seen.append(future.result))
    call.join()
    return seen

def patience():
    hasty = connect(timeout=1)
    try:
        return hasty.call("sleep", 6)
    except error.TimeoutError as raised:
        return type(raised).__name__
    finally:
        hasty.close()

def binary():
    raw = connect(timeout=60)
    try:
        data = b"\\x00\\xfe\\xff"
        return [raw.call("echo", data) == data, raw.call("data") == b"\\x00\\xff", raw.call("kind", data).decode()]
    finally:
        raw.close()

def many_connections():
    clients = [connect(timeout=60) for _ in range(20)]
    found = [each.call("pid") for each in clients]
    for _ in range(300):  # of two workers one may not have come to run yet
        if len(set(found)) == 1:
            time.sleep(0.1)
            clients.append(connect(timeout=60))
            found.append(clients[-1].call("pid"))
    for each in clients:
        each.close()
    return found

print(json.dumps({test.__name__: test() for test in (
    results, nil, errors, notify, asynchronous, callbacks, patience, binary, many_connections)}))
client.close()
"""


@pytest.fixture(scope="module")
def old_client(old_library, tmp_path_factory):
    """Runs the calls of the old library against an address; returns what each function found."""
    script = tmp_path_factory.mktemp("old") / "caller.py"
    script.write_text(CALLER)

    def run(address: str) -> dict:
        where = parse_address(address)
        command = [old_library, str(script), where.host, str(where.port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


def test_the_old_library_is_served(make_cluster, old_client):
    """Results, nil, errors, unknown methods, notifications, asynchronous calls, timeouts: all as it knows them."""
    made = make_cluster(service="it:It", number_workers=2)
    made.write_module("it", SERVICE)
    running = made.start()
    found = old_client(running.address)
    assert found["results"] == [3, "grüß", [1, {"a": 2.5}, True], True, 2**64 - 1, 0]
    assert found["nil"] == [None, None]
    assert found["errors"][:4] == [
        ["RPCError", "RuntimeError: boom"],
        ["RPCError", "'nope' method not found"],
        ["RPCError", "'_private' method not found"],
        ["RPCError", "'__class__' method not found"],
    ]
    assert found["errors"][4][1].startswith("ArgumentError: ")
    assert found["notify"] == 1
    assert found["asynchronous"] == [[2 * number for number in range(50)], True, "let go", "RuntimeError: later"]
    assert found["callbacks"] == [42]
    assert found["patience"] == "TimeoutError"
    assert found["binary"] == [True, True, "str"]  # its version of MessagePack has one type for both
    assert set(found["many_connections"]) == set(running.worker_pids())
    noted = []
    for pid in running.worker_pids():
        with running.client_of(pid) as client:
            noted += client.call("told")
    assert sorted(noted, key=len) == [["from a call"], [1, "two"]]
    wait_until(lambda: sum(worker["connections"] for worker in running.status()["workers"]) == 0)
    assert "Closing the connection" not in running.log_text()
