"""Methods marked ``@rpc(pool=…)``: they run in task processes, and are calls like any other."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import threading
from collections.abc import Callable

import pytest

from rpccluster.errors import ArgumentError, RemoteError
from rpccluster.testing import RunningCluster, wait_until

MakeCluster = Callable[..., RunningCluster]

SERVICE = """
import os
import time

from rpccluster import rpc


class Shop:
    def __init__(self):
        self.made_in = os.getpid()
        self.told = 0

    def task_process_started(self):
        self.told += 1

    def worker(self):
        return os.getpid()

    @rpc(pool="a")
    def where(self):
        return [os.getpid(), self.made_in, self.told]

    @rpc(pool="a", name="sum")
    def add(self, one, other):
        return {"sum": one + other}

    @rpc(pool="a")
    def fails(self):
        raise KeyError("no such thing")

    @rpc(pool="a")
    def ends(self):
        os._exit(7)

    @rpc(pool="a")
    def returns_an_object(self):
        return self

    @rpc(pool="a", timeout=0.2)
    def sleeps(self):
        time.sleep(60)

    @rpc(pool="slow")
    def spins(self):
        while True:
            pass

    @rpc(pool="slow")
    def waits_for(self, path):
        while not os.path.exists(path):
            time.sleep(0.01)
        return path
"""


@pytest.fixture
def made(make_cluster: MakeCluster) -> RunningCluster:
    """A cluster of one worker and two pools of one process, not started yet."""
    slow = {"processes": 1, "queue_size": 1, "timeout": 0.3}
    sections = {"pool:a": {"processes": 1}, "pool:slow": slow}
    cluster = make_cluster(service="shop:Shop", number_workers=1, chdir=".", sections=sections)
    cluster.write_module("shop", SERVICE)
    return cluster


def test_it_runs_in_a_task_process(made: RunningCluster) -> None:
    """On an instance that the process makes once; arguments and result are values of MessagePack."""
    made.start()
    with made.client() as client:
        worker = client.call("worker")
        first, made_in, told = client.call("where")
        assert (first, told) == (made_in, 1)
        assert first != worker
        assert client.call("where") == [first, first, 1]
        assert client.call("sum", b"one", b"other") == {"sum": b"oneother"}
        assert client.call("sum", 1 << 60, 1) == {"sum": (1 << 60) + 1}
        assert "one, other" in client.call("rpc.discover")["sum"]["signature"]


def test_its_errors_are_those_of_the_contract(made: RunningCluster) -> None:
    """As a plain method's where it raises; the pool's where it does not end by itself."""
    made.start()
    with made.client() as client:
        with pytest.raises(RemoteError, match=r"^KeyError: 'no such thing'$"):
            client.call("fails")
        with pytest.raises(ArgumentError, match="missing 1 required positional argument"):
            client.call("sum", 1)
        with pytest.raises(RemoteError, match=r"^ResultNotPacked: "):
            client.call("returns_an_object")
        with pytest.raises(RemoteError, match=r"^WorkerLost: "):
            client.call("ends")
        with pytest.raises(RemoteError, match=r"^TimeoutError: the call took longer than 0.2 seconds"):
            client.call("sleeps")
        with pytest.raises(RemoteError, match=r"^TimeoutError: the task was killed at its timeout"):
            client.call("spins")
        assert client.call("sum", 1, 2) == {"sum": 3}


def test_a_full_pool_refuses(made: RunningCluster) -> None:
    """At once; and a cancelled task is told as such."""
    made.write_section("pool:slow", {"processes": 1, "queue_size": 1})
    made.start()
    made.wait_group("pool:slow")  # else the first task waits for a process, and fills the queue
    with made.client(120) as client:
        calls = [client.call_async("waits_for", "may_go") for _ in range(2)]
        wait_until(lambda: [each["waiting"] for each in pools(made) if each["name"] == "slow"] == [1])
        with pytest.raises(RemoteError, match=r"^PoolFull: "):
            client.call("waits_for", "may_go")
        with made.control() as control:
            tasks = control.call("pool.tasks", "slow")
            assert [task["state"] for task in tasks] == ["running", "waiting"]
            assert control.call("pool.cancel", tasks[1]["id"]) is True
        (ended,), (running,) = concurrent.futures.wait(calls, 60, concurrent.futures.FIRST_COMPLETED)
        with pytest.raises(RemoteError, match=r"^Cancelled: "):
            ended.result()
        (made.folder / "may_go").touch()
        assert running.result(60) == "may_go"


def pools(cluster: RunningCluster) -> list[dict[str, object]]:
    with cluster.control() as control:
        told: list[dict[str, object]] = control.call("pool.list")
        return told


def test_it_goes_on_while_its_connection_moves(made: RunningCluster) -> None:
    """To another worker; the reply comes over the same connection. One that is killed has its tasks ended."""
    made.write_section("pool:slow", {"processes": 2})
    made.start()
    with made.client() as client:
        call = client.call_async("waits_for", "may_go")
        first = client.call("worker")
        os.kill(first, signal.SIGTERM)
        wait_until(lambda: client.call("worker") != first)
        (made.folder / "may_go").touch()
        assert call.result() == "may_go"
        wait_until(lambda: sum(int(str(each["running"])) for each in pools(made)) == 0)
        other = client.call_async("waits_for", "never")
        wait_until(lambda: sum(int(str(each["running"])) for each in pools(made)) == 1)
        os.kill(made.worker_pids()[0], signal.SIGKILL)
        wait_until(lambda: sum(int(str(each["running"])) for each in pools(made)) == 0)
        with pytest.raises(Exception):  # noqa: B017 - the connection has ended with its worker
            other.result()
    made.wait_log("has gone: its 1 tasks are ended")


def test_an_upgrade_loses_no_call(made: RunningCluster) -> None:
    """What runs ends in the old cluster, what waits begins in the new one; each reply comes over its connection."""
    made.write_section("pool:slow", {"processes": 1})
    made.start()
    with made.client(120) as client:
        calls = [client.call_async("waits_for", "may_go") for _ in range(2)]
        wait_until(lambda: [each["waiting"] for each in pools(made) if each["name"] == "slow"] == [1])
        upgrade = made.launch("upgrade")
        made.wait_log("has taken over")
        (made.folder / "may_go").touch()
        assert [call.result() for call in calls] == ["may_go", "may_go"]
        assert client.call("sum", 1, 2) == {"sum": 3}
        assert upgrade.wait(60) == 0
        assert client.call("sum", 3, 4) == {"sum": 7}


def test_no_call_fails_while_everything_is_replaced(made: RunningCluster) -> None:
    """Workers and task processes as by HUP, the dispatcher by TERM, all by USR2; the callers keep their connections."""
    made.start()
    stop, failures, answered = threading.Event(), [], [0]

    def call(number: int) -> None:
        with made.client() as client:
            while not stop.is_set():
                try:
                    assert client.call("sum", answered[0], number)["sum"] >= number
                except Exception as error:
                    failures.append(repr(error))
                answered[0] += 1

    callers = [threading.Thread(target=call, args=(number,)) for number in range(4)]
    for caller in callers:
        caller.start()
    for replace in (
        lambda: made.run("reload", "--all"),
        lambda: os.kill(made.group("pools")["processes"][0]["pid"], signal.SIGTERM),
        lambda: made.run("upgrade"),
    ):
        before = answered[0]
        replace()
        wait_until(lambda before=before: answered[0] > before + 50)
    stop.set()
    for caller in callers:
        caller.join(60)
    assert failures == []
