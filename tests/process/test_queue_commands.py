"""The commands about queues, from the shell, against a real keeper."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from rpccluster import Queue, RemoteError
from rpccluster.testing import RunningCluster, wait_until

MakeCluster = Callable[..., RunningCluster]


@pytest.fixture
def made(make_cluster: MakeCluster) -> RunningCluster:
    """A cluster of two queues alone."""
    return make_cluster(sections={"queue:jobs": {"max_attempts": 1}, "queue:other": {}}, number_workers=1).start()


def run(cluster: RunningCluster, *words: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """What ``rpccluster queue`` says to ``given`` on stdin."""
    command = cluster.command("queue", *words)
    return subprocess.run(command, input=given, capture_output=True, text=True, timeout=60, check=False)


def test_items_go_in_and_out(made: RunningCluster) -> None:
    """As lines of JSON; what was read is acked, and nothing else."""
    put = run(made, "put", "jobs", given='{"a": 1}\n\n"two"\n[3]\n')
    assert (put.returncode, len(put.stdout.split())) == (0, 3), put
    assert run(made, "put", "jobs", "--priority", "9", given="0\n").returncode == 0
    shown = run(made, "peek", "jobs").stdout.splitlines()
    assert [json.loads(line)["value"] for line in shown] == [0, {"a": 1}, "two", [3]]
    got = run(made, "get", "jobs", "-n", "2")
    assert [json.loads(line) for line in got.stdout.splitlines()] == [0, {"a": 1}]
    told = json.loads(run(made, "stats", "jobs", "--json").stdout)
    assert (told["ready"], told["leased"], told["dead"]) == (2, 0, 0)
    assert run(made, "get", "jobs", "-n", "5").stdout == '"two"\n[3]\n'
    none = run(made, "get", "jobs")
    assert (none.returncode, none.stderr) == (1, "rpccluster: the queue jobs has nothing ready\n")
    wrong = run(made, "put", "jobs", given="1\n{\n")
    assert (wrong.returncode, "line 2 is no JSON" in wrong.stderr) == (1, True)


def test_whatever_is_looked_at_fits_into_a_message(make_cluster: MakeCluster) -> None:
    """There are as many items as fit; a first one always does, if need be with less of its error."""
    sections = {"queues": {"max_message_size": 2000}, "queue:jobs": {}}
    cluster = make_cluster(sections=sections, number_workers=1).start()
    with Queue(str(cluster.group("queues")["listeners"][0]), "jobs", timeout=60) as queue:
        for number in range(20):
            queue.put([number, "x" * 200])
        assert [each.value[0] for each in queue.peek(100_000)] == list(range(len(queue.peek(100_000))))
        assert 1 < len(queue.peek(100_000)) < 10
        for item in queue.get_many(5):
            item.nack(error="y" * 100, dead=True)
        assert [each.value[0] for each in queue.dead()] == [0, 1, 2]
        queue.purge()
        queue.put("x" * 1900)
        queue.get(30).nack(error="é" * 900, dead=True)
        [dead] = queue.dead()
        assert (len(dead.value), set(dead.error)) == (1900, {"é"})


def test_a_command_works_on_each_item(made: RunningCluster) -> None:
    """Its end with 0 acks the item; another end gives it back, and after its attempts it is dead."""
    run(made, "put", "jobs", given="1\n0\n0\n")
    program = "import json, sys; sys.exit(json.load(sys.stdin))"
    done = run(made, "work", "-n", "3", "jobs", sys.executable, "-c", program)
    assert done.returncode == 0, done
    [dead] = [json.loads(line) for line in run(made, "dead", "jobs").stdout.splitlines()]
    assert (dead["attempts"], dead["value"], dead["error"]) == (1, 1, f"{sys.executable} ended with 1")
    assert json.loads(run(made, "list", "--json").stdout)[0]["ready"] == 0
    assert run(made, "retry", "jobs", str(dead["id"])).stdout == "1\n"
    assert run(made, "retry", "jobs", "999").returncode == 1
    misplaced = run(made, "work", "jobs", "-n", "1", "cat")
    assert (misplaced.returncode, "options stand before NAME" in misplaced.stderr) == (2, True)
    assert run(made, "work", "-n", "1", "--wait", "20", "jobs", "/no/such/program").returncode == 1
    assert run(made, "retry", "jobs").stdout == "1\n"
    assert run(made, "purge", "jobs").stdout == "1\n"


def test_the_list_and_the_pause(made: RunningCluster) -> None:
    """A paused queue takes items and gives none."""
    assert run(made, "pause", "jobs").returncode == 0
    run(made, "put", "jobs", given="1\n")
    none = run(made, "get", "jobs")
    assert (none.returncode, none.stderr) == (1, "rpccluster: the queue jobs is paused\n")
    header, jobs, other = (line.split() for line in run(made, "list").stdout.splitlines())
    assert header == ["name", "ready", "delayed", "leased", "dead", "waiting", "bytes", "paused"]
    assert (jobs[:2], jobs[-1], other[0]) == (["jobs", "1"], "yes", "other")
    assert run(made, "resume", "jobs").returncode == 0
    assert run(made, "get", "jobs").stdout == "1\n"


def test_what_is_not_there_is_told(made: RunningCluster, cluster: Callable[..., RunningCluster]) -> None:
    """A queue without a section, a cluster without queues."""
    assert run(made, "stats", "nobody").stderr == "rpccluster: NoSuchQueue: nobody\n"
    told = run(cluster(number_workers=1), "list")
    assert (told.returncode, "keeps no queues" in told.stderr) == (1, True)


def test_the_control_socket_has_the_methods_of_queues(made: RunningCluster) -> None:
    """With the protocol's params and answers, of values of any kind, and errors; nobody needs the keeper's address."""
    with made.control() as control:
        value = {1: b"\xff", "long": "x" * 1000}
        first = control.call("queue.put", "jobs", value)
        second = control.call("queue.put", "jobs", [2], {"priority": 9})
        assert control.call("queue.peek", "jobs", 5) == [[second, 0, [2]], [first, 0, value]]
        assert control.call("queue.stats", "jobs")["ready"] == 2
        assert [each["name"] for each in control.call("queue.list")] == ["jobs", "other"]
        assert control.call("queue.pause", "jobs") is True

        def told() -> list[dict[str, Any]]:
            """What status tells: nothing while the keeper is slow to answer."""
            found: list[dict[str, Any]]
            [found] = [each["queues"] for each in control.call("status")["groups"] if each["name"] == "queues"]
            return found

        queues = wait_until(told)
        counts = [(each["name"], each["ready"], each["paused"]) for each in queues]
        assert counts == [("jobs", 2, True), ("other", 0, False)]
        assert control.call("queue.resume", "jobs") is True
        assert (control.call("queue.purge", "jobs"), control.call("queue.dead", "jobs")) == (2, [])
        with pytest.raises(RemoteError, match=r"^NoSuchQueue: nobody"):
            control.call("queue.stats", "nobody")
        with pytest.raises(RemoteError, match=r"^ArgumentError: "):
            control.call("queue.put", "jobs", 1, {"priority": 10})
        with pytest.raises(RemoteError, match="ArgumentError: found 0 params, expected 1"):
            control.call("queue.stats")
        for _ in range(400):
            control.call("queue.put", "other", "x" * 3000)
        with pytest.raises(RemoteError, match="expected at most 1048576: ask for fewer"):
            control.call("queue.peek", "other", 400)


def test_status_tells_of_queues_though_the_keeper_is_silent(made: RunningCluster) -> None:
    """Their counts are null then, and come back with it."""
    with made.control() as control:
        [keeper] = [each for each in control.call("status")["groups"] if each["name"] == "queues"]
        pid = keeper["processes"][0]["pid"]
        os.kill(pid, signal.SIGSTOP)
        try:
            [keeper] = [each for each in control.call("status")["groups"] if each["name"] == "queues"]
            assert keeper["queues"] is None
        finally:
            os.kill(pid, signal.SIGCONT)
        wait_until(
            lambda: next(e for e in control.call("status")["groups"] if e["name"] == "queues")["queues"],
            what="the counts come back",
        )
    assert run(made, "stats", "jobs").returncode == 0
    wait_until(lambda: "jobs       0" in made.run("status").stdout)
