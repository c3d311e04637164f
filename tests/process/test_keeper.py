"""The keeper of a cluster's queues: a process beside the workers, whose ends lose nothing and refuse nobody."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from keepers import Failed, address, keeper, peer, until_waiting
from patience import within

from rpccluster import AuthenticationFailed, Queue
from rpccluster.testing import RunningCluster, is_alive, wait_until

MakeCluster = Callable[..., RunningCluster]
JOBS = {"queue:jobs": {"max_attempts": 3}}


@pytest.fixture
def made(make_cluster: MakeCluster) -> RunningCluster:
    """A cluster of one worker and a queue, which runs."""
    return make_cluster(sections=JOBS, number_workers=1).start()


def test_it_is_there_as_long_as_there_are_queues(cluster: Callable[..., RunningCluster]) -> None:
    """A reload starts it with the first section and stops it with the last; the items stay in the file."""
    running = cluster(number_workers=1)
    workers = running.worker_pids()
    running.write_section("queue:jobs", {})
    assert running.run("reload").returncode == 0
    group = running.group("queues")
    assert (group["kind"], group["state"], group["wanted"]) == ("keeper", "ready", 1)
    assert os.stat(address(running).partition("://")[2]).st_mode & 0o777 == 0o600
    with peer(running) as one:
        first = one.call("queue.put", "jobs", "kept")
    running.write_section("queue:jobs", None)
    assert running.run("reload").returncode == 0
    assert "queues" not in [each["name"] for each in running.status()["groups"]]
    running.write_section("queue:jobs", {})
    assert running.run("reload").returncode == 0
    with peer(running) as one:
        assert one.call("queue.peek", "jobs", 9) == [[first, 0, "kept"]]
    assert running.worker_pids() == workers


def test_it_comes_before_the_workers_and_goes_after_them(made: RunningCluster) -> None:
    """Workers may use it from their first moment to their last."""
    found = keeper(made)
    made.signal(signal.SIGTERM)
    assert made.wait() == 0
    assert not is_alive(found)
    log = made.log_text()
    assert log.index("Keeper ready") < log.index("Booting worker")
    assert log.index("Worker exiting") < log.index("Keeper exiting")


def test_a_keeper_that_cannot_start_holds_the_others_up_once(make_cluster: MakeCluster) -> None:
    """It is waiting with its reason, the workers serve; when the cause is mended it starts."""
    running = make_cluster(sections=JOBS, number_workers=1)
    file = Path(running.folder, "queues.db")
    file.write_text("this is no database, and longer than its header would be" * 20)
    running.start()
    assert "queues.db" in running.wait_group("queues", "waiting")["reason"]
    assert len(running.worker_pids()) == 1
    file.unlink()
    assert running.run("reload").returncode == 0
    assert running.wait_group("queues")["reason"] == ""


def test_a_waiting_get_goes_on_with_the_next_keeper(make_cluster: MakeCluster) -> None:
    """On the same connection, here and in a new master; the item that was given out before is still its consumer's."""
    made = make_cluster(sections={**JOBS, "queues": {"session_grace": 0.1}}, number_workers=1).start()
    first = keeper(made)
    with peer(made) as one, peer(made) as other:
        held = one.call("queue.put", "jobs", "held")
        assert one.call("queue.get", "jobs", {}) == [[held, 1, "held"]]
        waiting = one.begin("queue.get", "jobs", {})
        until_waiting(other, "jobs", 1)
        os.kill(first, signal.SIGTERM)
        second = keeper(made, first)
        until_waiting(other, "jobs", 1)
        assert made.run("upgrade").returncode == 0
        keeper(made, first, second)
        until_waiting(other, "jobs", 1)
        time.sleep(0.3)  # longer than sessions have to come back, and this one was never away
        late = other.call("queue.put", "jobs", "late")
        assert one.end(waiting) == [[late, 1, "late"]]
        assert one.call("queue.ack", "jobs", [[held, 1], [late, 1]]) is True
        assert other.call("queue.join", "jobs") is True


def test_a_killed_keeper_loses_nothing(made: RunningCluster) -> None:
    """Its successor is there at once, refuses nobody, and the consumer that comes back has its item still."""
    first = keeper(made)
    session = b"s" * 16
    with peer(made) as one:
        held, free = (one.call("queue.put", "jobs", value) for value in ("held", "free"))
        assert one.call("queue.get", "jobs", {"session": session, "seq": 1}) == [[held, 1, "held"]]
        os.kill(first, signal.SIGKILL)
        with pytest.raises((ConnectionError, OSError)):
            one.call("queue.stats", "jobs")
    with peer(made) as one:
        assert one.call("queue.get", "jobs", {"session": session, "n": 0}) == []
        assert one.call("queue.get", "jobs", {"session": session, "seq": 2}) == [[free, 1, "free"]]
        assert one.call("queue.ack", "jobs", [[held, 1]]) is True


def test_a_consumer_that_does_not_come_back_loses_its_items(make_cluster: MakeCluster) -> None:
    """After session_grace, and the attempt that the keeper's death has ended counts nothing."""
    running = make_cluster(sections={"queues": {"session_grace": 0.2}, "queue:jobs": {"max_attempts": 1}}).start()
    first = keeper(running)
    with peer(running) as one:
        item = one.call("queue.put", "jobs", "x")
        assert one.call("queue.get", "jobs", {"session": "gone" * 5, "seq": 1})[0][0] == item
        os.kill(first, signal.SIGKILL)
        with pytest.raises((ConnectionError, OSError)):
            one.call("queue.stats", "jobs")
    with peer(running) as one:
        [[found, attempt, value]] = one.call("queue.get", "jobs", {"timeout": 20})
        assert (found, value) == (item, "x")
        assert one.call("queue.ack", "jobs", [[found, attempt]]) is True


def test_the_end_of_a_consumer_gives_its_items_on(made: RunningCluster) -> None:
    """At once, also while another of its gets waits; a session lives as long as any of its connections."""
    with peer(made) as one, peer(made) as other:
        item = other.call("queue.put", "jobs", "x")
        assert one.call("queue.get", "jobs", {"session": "ab" * 8, "seq": 1}) == [[item, 1, "x"]]
        one.begin("queue.get", "jobs", {"session": "ab" * 8, "seq": 2})
        until_waiting(other, "jobs", 1)
        waiting = other.begin("queue.get", "jobs", {})
        with peer(made) as second:
            assert second.call("queue.get", "jobs", {"session": "ab" * 8, "n": 0}) == []
            one.close()
            until_waiting(second, "jobs", 1)
            assert second.call("queue.stats", "jobs")["leased"] == 1
            began = time.monotonic()
        assert other.end(waiting) == [[item, 2, "x"]]
        assert time.monotonic() - began < within(5.0)


def test_a_lease_ends_though_its_holder_is_connected(make_cluster: MakeCluster) -> None:
    """It is given to the next; the late ack is refused; after max_attempts the item is dead."""
    running = make_cluster(sections={"queue:jobs": {"lease": 0.1, "max_attempts": 2}}).start()
    with peer(running) as one, peer(running) as other:
        item = one.call("queue.put", "jobs", "x")
        assert one.call("queue.get", "jobs", {}) == [[item, 1, "x"]]
        assert other.call("queue.get", "jobs", {"timeout": 20}) == [[item, 2, "x"]]
        with pytest.raises(Failed, match="LeaseLost: "):
            one.call("queue.ack", "jobs", [[item, 1]])
        [[found, attempts, value, _]] = wait_until(lambda: one.call("queue.dead", "jobs"))
        assert (found, attempts, value) == (item, 2, "x")


def test_the_clusters_end_answers_what_waits(made: RunningCluster) -> None:
    """A get that waits for ever does not hold the stop up."""
    with peer(made) as one:
        waiting = one.begin("queue.get", "jobs", {})
        with peer(made) as other:
            until_waiting(other, "jobs", 1)
        made.signal(signal.SIGTERM)
        with pytest.raises(Failed, match="QueueDown: "):
            one.end(waiting)
        assert made.wait() == 0


def test_what_callers_get_wrong(made: RunningCluster) -> None:
    """Each is told, and changes nothing."""
    with peer(made) as one:
        for params, told in (
            (("nobody", 1), "NoSuchQueue: "),
            (("jobs", 1, {"prio": 1}), "ArgumentError: found the unknown option 'prio'"),
            (("jobs", 1, {"priority": 10}), "ArgumentError: found 10 for priority, expected a whole number, 0 to 9"),
            (("jobs", 1, {"delay": float("nan")}), "ArgumentError: found nan for delay"),
            (("jobs", 1, {"session": "short", "seq": 1}), "ArgumentError: found 'short' for session"),
            (("jobs", 1, {"session": "x" * 16}), "ArgumentError: found session without seq"),
            (("jobs", 1, [1]), "ArgumentError: found \\[1\\] for options, expected a map"),
            ((7, 1), "ArgumentError: found 7 for queue"),
            (("jobs",), "ArgumentError: "),
        ):
            with pytest.raises(Failed, match=told):
                one.call("queue.put", *params)
        with pytest.raises(Failed, match="ArgumentError: found 'x' for ack"):
            one.call("queue.get", "jobs", {"ack": "x"})
        with pytest.raises(Failed, match="LeaseLost: "):
            one.call("queue.nack", "jobs", 1, 1)
        assert one.call("queue.stats", "jobs")["ready"] == 0
        assert "Traceback" not in made.log_text()


def test_who_may_come_by_tcp(make_cluster: MakeCluster) -> None:
    """A key is proved, and another one holds from the reload on; the keeper and its connections go on."""
    keys = {"authkey_file": "keys"}
    running = make_cluster(sections={"queues": {"bind": "tcp://127.0.0.1:0"}, "queue:jobs": {}}, **keys)
    file = Path(running.folder, "keys")

    def write(key: str) -> None:
        file.write_text(f"{key}\n")
        file.chmod(0o600)

    write("the-first-key-of-all")
    running.start()
    found, (_, tcp) = keeper(running), running.group("queues")["listeners"]
    with Queue(tcp, "jobs", authkey="the-first-key-of-all") as first:
        first.put("a")
        with (
            Queue(tcp, "jobs", authkey="some-other-key-here!", timeout=1.0) as wrong,
            pytest.raises(AuthenticationFailed),
        ):
            wrong.put("b")
        write("the-second-key-of-all")
        assert running.run("reload").returncode == 0
        with Queue(tcp, "jobs", authkey="the-second-key-of-all") as second:
            item = second.get()
            assert item is not None
            assert item.value == "a"
            item.ack()
        first.put("c")
    assert keeper(running) == found
