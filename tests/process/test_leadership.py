"""Several clusters of which one leads: whatever is stopped, killed or replaced, no two lead at a time.

Each test runs with the store in a file and with ZooKeeper.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from companies import SESSION_SECONDS, Callers, Company, pids_of, told
from zookeeper_servers import TICK_MS, ZooKeeper, zookeeper

from rpccluster.client import Client
from rpccluster.errors import LeadLost, NotLeader
from rpccluster.testing import RunningCluster, is_alive, wait_until

FULL_SCALE = bool(os.environ.get("RPCCLUSTER_FULL_SCALE"))
STOPS = 200 if FULL_SCALE else 3
LONGEST_STOP = 30.0 if FULL_SCALE else 0.6
CALL_PAUSE = 0.03 if FULL_SCALE else 0.003  # of each caller: an hour of calls is to be read in the end
ROUNDS = 10 if FULL_SCALE else 1
#: Bounds for a machine that does nothing else; it gets more where it does.
TAKEOVER_SECONDS = SESSION_SECONDS + TICK_MS / 1000 + (1.0 if FULL_SCALE else 30.0)
KEPT_SECONDS = 10.0 if FULL_SCALE else 4.0  # a session in which a process can boot, whatever else the machine does
RESIGN_SECONDS = 0.2 if FULL_SCALE else 30.0
TARGETS = ("all", "master", "coordinator", "workers")

MakeCompany = Callable[..., Company]
_paths = itertools.count(1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZooKeeper]:
    """One ZooKeeper for all tests of this module."""
    pytest.importorskip("kazoo", reason="the extra `zookeeper` is not installed")
    with zookeeper(tmp_path_factory.mktemp("zookeeper")) as running:
        yield running


@pytest.fixture(params=["file", "zookeeper"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store of the test's own."""
    if request.param == "file":
        return f"file:{tmp_path}/lead"
    server: ZooKeeper = request.getfixturevalue("server")
    return f"zookeeper://{server.address}/process/{next(_paths)}"


@pytest.fixture
def company(tmp_path: Path, store: str) -> Iterator[MakeCompany]:
    """Makes companies, and ends them."""
    made: list[Company] = []

    def make(count: int = 2, **options: Any) -> Company:
        made.append(Company(tmp_path, store, count, **options))
        return made[-1].start()

    yield make
    for each in made:
        each.stop()


@pytest.mark.timeout(3 * 3600 if FULL_SCALE else 120)
@pytest.mark.parametrize(("store", "engine"), [("file", "compiled"), ("zookeeper", "python")], indirect=["store"])
def test_whatever_is_stopped_no_older_lead_does_anything_after_a_newer_one(company: MakeCompany, engine: str) -> None:
    """The leader's master, its coordinator, its workers or all of them are stopped for a while, again and again; each
    call writes its token to a file that takes no older one behind a newer one."""
    chance = random.Random(20)
    clusters = company(3 if FULL_SCALE else 2, engine=engine)
    with Callers(clusters, CALL_PAUSE) as callers:
        wait_until(lambda: callers.replies, what="calls of the first lead")
        for number in range(STOPS):
            cluster, target = clusters.leader(), TARGETS[number % len(TARGETS)]
            seconds = SESSION_SECONDS + 1.0 if number == 0 else chance.uniform(0.1, LONGEST_STOP)
            if FULL_SCALE:
                where = f"{target} of {cluster.folder.name} for {seconds:.1f} s"
                print(f"{time.strftime('%X')} {number}: {where}", flush=True)
            stop_for(cluster, target, seconds)
        token = clusters.token()
        wait_until(lambda: any(each[1] >= token for each in callers.replies), what="calls of the last lead")
    counts = callers.check()
    assert counts["leads"] > 1, "nobody else has led"
    print(f"{STOPS} stops: {counts}; errors: {callers.errors}")


def test_a_call_that_is_stopped_between_check_and_write_is_refused_by_its_token(company: MakeCompany) -> None:
    """The store that checks the token closes the gap that no lease can: the write of the old lead comes too late."""
    clusters = company()
    cluster, token = clusters.leader(), clusters.token()
    pids = pids_of(cluster)
    with cluster.client(60) as client:
        asked = client.call_async("write", 1.0)
        begins = Path(f"{clusters.ledger}.begins")
        wait_until(lambda: begins.exists() and begins.read_text().endswith("\n"), what="it has begun")
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        other = clusters.leader(besides=cluster)
        with other.client() as its:
            newer, taken = its.call("write")
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        with pytest.raises(LeadLost):
            asked.result(30)
    assert taken and newer > token
    assert [int(line.split()[0]) for line in clusters.ledger.read_text().splitlines()] == [newer]


def stop_for(cluster: RunningCluster, target: str, seconds: float) -> None:
    """Stop some processes of a cluster for a while."""
    groups = {"all": (), "master": (), "coordinator": ("leadership",), "workers": ("workers",)}[target]
    pids = pids_of(cluster, *groups)
    for pid in pids[:1] if target == "master" else pids:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(seconds)  # this is how long it is stopped, not a wait for something
    for pid in reversed(pids):
        if is_alive(pid):
            os.kill(pid, signal.SIGCONT)


def test_another_one_leads_within_the_session_after_a_kill(company: MakeCompany) -> None:
    """Everything of the leader is killed, and its token is lower than the next one's."""
    clusters, longest = company(), 0.0
    for _ in range(ROUNDS):
        cluster, token = clusters.leader(), clusters.token()
        pids = pids_of(cluster)
        warden = cluster.status()["master"]["warden_pid"]
        began = time.monotonic()
        for pid in [*([warden] if warden else []), *pids]:
            os.kill(pid, signal.SIGKILL)
        other = clusters.leader(besides=cluster)
        longest = max(longest, time.monotonic() - began)
        assert told(other)["token"] > token
        cluster.start()
    print(f"another one led after {longest:.2f} seconds at most")
    assert longest < TAKEOVER_SECONDS


def test_resigning_hands_over_without_a_failed_call(company: MakeCompany) -> None:
    """A client that follows notices nothing; who is asked then knows the new leader."""
    clusters = company()
    cluster = clusters.leader()
    other = next(each for each in clusters.clusters if each is not cluster)
    with Client(cluster.address, follow_leader=True, timeout=20) as client, cluster.control() as control:
        assert client.call("lead", 1) == 1
        began = time.monotonic()
        shown = control.call("leader.resign")
        for number in range(50):
            assert client.call("lead", number) == number
        print(f"another one led, and has answered 50 calls, after {time.monotonic() - began:.3f} seconds")
        assert time.monotonic() - began < RESIGN_SECONDS
    assert shown["leader"] == other.address
    assert told(other)["is_leader"] and not told(cluster)["is_leader"]
    assert cluster.run("leader", "show").stdout == f"the lead is at {other.address} (token {shown['token']})\n"
    assert other.run("leader", "show").stdout == f"this cluster leads (token {shown['token']})\n"


def test_reload_upgrade_and_kills_keep_the_lead_and_its_token(company: MakeCompany) -> None:
    """HUP, USR2, and the end of the coordinator: a successor goes on with the session, and no call fails."""
    clusters = company(lead_session_timeout=KEPT_SECONDS)
    cluster, token = clusters.leader(), clusters.token()
    with Callers(clusters) as callers:
        for _ in range(ROUNDS):
            coordinator = pids_of(cluster, "leadership")[0]
            os.kill(coordinator, signal.SIGKILL)
            wait_for_another(cluster, coordinator)
            master = cluster.master_pid
            cluster.signal(signal.SIGUSR2)
            wait_until(lambda old=master: cluster.master_pid not in (old, 0) and not is_alive(old), what="a new master")  # type: ignore[misc]
            cluster.wait_group("leadership")
            assert cluster.run("reload", "--all").returncode == 0
            cluster.wait_group("leadership")
        seen = len(callers.replies)
        wait_until(lambda: len(callers.replies) > seen + 20, what="calls go on")
    assert told(cluster) == {
        "is_leader": True,
        "leader": cluster.address,
        "token": token,
        "session_timeout": KEPT_SECONDS,
    }
    assert set(callers.errors) <= {"NotLeader"}  # of the other cluster
    assert {each[1] for each in callers.replies} == {token}
    callers.check()


def wait_for_another(cluster: RunningCluster, coordinator: int) -> int:
    """Wait for a coordinator other than that one, and return its pid."""

    def found() -> int | None:
        row = cluster.group("leadership")["processes"][0]
        return int(row["pid"]) if row["state"] == "ready" and row["pid"] != coordinator else None

    return wait_until(found, what="another coordinator")


def test_a_coordinator_that_is_stopped_is_replaced_before_the_lease_ends(company: MakeCompany) -> None:
    """Master and workers go on as if nothing had happened."""
    clusters = company(1, lead_session_timeout=6)
    cluster, token = clusters.leader(), clusters.token()
    with Callers(clusters) as callers:
        coordinator = pids_of(cluster, "leadership")[0]
        os.kill(coordinator, signal.SIGSTOP)
        wait_for_another(cluster, coordinator)
        seen = len(callers.replies)
        wait_until(lambda: len(callers.replies) > seen + 20, what="calls go on")
    assert callers.errors == {}
    assert clusters.token() == token
    assert "no sign of life for 1.5 seconds" in cluster.log_text()


@pytest.mark.parametrize("store", ["file"], indirect=True)
def test_a_long_call_that_outlives_the_lead_is_answered_so(company: MakeCompany) -> None:
    """It may have done its work; the lease ended by the clock, as master and coordinator were stopped."""
    clusters = company(1)
    cluster = clusters.leader()
    pids = [cluster.master_pid, *pids_of(cluster, "leadership")]
    with cluster.client() as client:
        asked = client.call_async("lead_for", SESSION_SECONDS + 0.3)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        with pytest.raises(LeadLost):
            asked.result(20)
        with pytest.raises(NotLeader):
            client.call("lead")
        with pytest.raises(Exception, match="none"):
            client.call("check")
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def test_a_stop_frees_the_lead_at_once(company: MakeCompany) -> None:
    """Another one need not wait for the end of the session."""
    clusters = company()
    cluster = clusters.leader()
    cluster.signal(signal.SIGTERM)
    assert cluster.wait() == 0
    clusters.leader(besides=cluster, seconds=SESSION_SECONDS if FULL_SCALE else 30.0)
    assert cluster.left_behind() == []


@pytest.mark.parametrize("store", ["file"], indirect=True)
def test_status_says_who_leads(company: MakeCompany) -> None:
    """In the leader and elsewhere."""
    clusters = company()
    cluster = clusters.leader()
    shown = [each.status()["master"]["leadership"] for each in clusters.clusters]
    assert [each["is_leader"] for each in shown].count(True) == 1
    assert {(each["leader"], each["token"]) for each in shown} == {(cluster.address, clusters.token())}
    group = cluster.group("leadership")
    assert (group["kind"], group["state"], group["wanted"]) == ("coordinator", "ready", 1)
