"""`reload` over all groups does the least; its plan says what; a faulty one changes nothing."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any, Callable

import pytest

from rpccluster import Client
from rpccluster.errors import RPCClusterError
from rpccluster.testing import RunningCluster, is_alive, wait_until

FULL_SCALE = bool(os.environ.get("RPCCLUSTER_FULL_SCALE"))
PLUGINS = 50 if FULL_SCALE else 8
WORKERS = 4 if FULL_SCALE else 2
CALLERS = 16 if FULL_SCALE else 4

MakeCluster = Callable[..., RunningCluster]

JOBS = """
import os
import signal
import time

def wait(args=None):
    print("waits with", args, flush=True)
    time.sleep(1000)

def mended():
    import mendable
    mendable.wait()

def once():
    print("once", flush=True)
"""


@pytest.fixture
def made(make_cluster: MakeCluster) -> RunningCluster:
    """A cluster that has not started, with the module jobs."""
    cluster = make_cluster(number_workers=1)
    cluster.write_module("jobs", JOBS)
    return cluster


def write_plugin(cluster: RunningCluster, name: str, **options: object) -> None:
    cluster.write_section(f"plugin:{name}", {"run": "jobs:wait", **options} if options != {"gone": True} else None)


def pids(cluster: RunningCluster) -> dict[str, list[int]]:
    """The pids of each group, once all are ready."""
    wait_until(lambda: all(group["state"] == "ready" for group in cluster.status()["groups"]), what="all are ready")
    return {
        group["name"]: [process["pid"] for process in group["processes"] if process["state"] == "ready"]
        for group in cluster.status()["groups"]
    }


def first(cluster: RunningCluster, name: str) -> Any:
    return cluster.group(f"plugin:{name}")["processes"][0]


class Callers:
    """Threads that call all the time, each over its own connection; the errors that they met."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(CALLERS)]
        self.errors: list[Exception] = []
        self.calls = 0

    def _call(self) -> None:
        with Client(self._address, timeout=60) as client:
            while not self._is_over.is_set():
                try:
                    assert client.call("sum", 1, 2) == 3
                    self.calls += 1
                except (RPCClusterError, AssertionError) as error:
                    self.errors.append(error)

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def many(make_cluster: MakeCluster) -> Iterator[RunningCluster]:
    """A cluster of many plugins and several workers under load."""
    cluster = make_cluster(number_workers=WORKERS)
    cluster.write_module("jobs", JOBS)
    for number in range(PLUGINS):
        write_plugin(cluster, f"p{number}", args=number)
    cluster.start()
    pids(cluster)
    return cluster


def test_one_comes_one_goes_one_changes_and_all_others_stay(many: RunningCluster) -> None:
    """The plan names just these and changes nothing; no call fails; a second reload touches nothing."""
    before = pids(many)
    with Callers(many.address) as callers:
        wait_until(lambda: callers.calls > 100)
        many.write_section("plugin:p1", None)
        write_plugin(many, "p2", args="other")
        write_plugin(many, "new")
        plan = [
            "added: plugin:new",
            "removed: plugin:p1",
            "changed: plugin:p2, args: 2 -> other",
            f"kept: {PLUGINS - 2 + WORKERS} processes",
            "generation 1",
        ]
        planned = many.run("reload", "--plan")
        assert (planned.returncode, planned.stdout.splitlines()) == (0, plan)
        assert pids(many) == before
        done = many.run("reload")
        assert (done.returncode, done.stdout.splitlines()) == (0, plan)
        after = pids(many)
        again = many.run("reload")
        assert again.stdout.splitlines() == [f"kept: {PLUGINS + WORKERS} processes", "generation 1"]
        assert pids(many) == after
        calls = callers.calls
        wait_until(lambda: callers.calls > calls + 100)
    assert callers.errors == []
    assert after.keys() ^ before.keys() == {"plugin:p1", "plugin:new"}
    assert [name for name in after if name in before and after[name] != before[name]] == ["plugin:p2"]
    assert not is_alive(before["plugin:p1"][0])
    assert not is_alive(before["plugin:p2"][0])
    assert first(many, "p2")["generation"] == 2
    many.wait_log(f"[{after['plugin:p2'][0]}] [p2] waits with other")
    assert {process["generation"] for process in many.group("workers")["processes"]} == {1}


def test_hup_and_all_replace_the_workers_and_no_plugin(made: RunningCluster) -> None:
    """Unless its section has changed."""
    write_plugin(made, "same")
    write_plugin(made, "other")
    made.start()
    before = pids(made)
    assert made.run("reload", "--all").stdout.splitlines() == ["changed: workers", "kept: 2 processes", "generation 2"]
    after = pids(made)
    assert [name for name in after if after[name] != before[name]] == ["workers"]
    write_plugin(made, "other", args="new")
    made.signal(signal.SIGHUP)
    made.wait_log("waits with new")
    wait_until(lambda: after["workers"][0] not in made.worker_pids())
    latest = pids(made)
    assert [name for name in latest if latest[name] != after[name]] == ["workers", "plugin:other"]


def test_what_the_master_alone_uses_is_applied_live(made: RunningCluster) -> None:
    """Nobody is replaced, and yet it holds at once; more processes are started, fewer end."""
    write_plugin(made, "a", processes=2)
    made.start()
    before = pids(made)
    made.write_config(number_workers=2, graceful_timeout=7)
    write_plugin(made, "a", processes=1, description="it waits", max_lifetime=3600)
    done = made.run("reload")
    assert done.stdout.splitlines() == [
        "applied live: number_workers: 1 -> 2",
        "applied live: graceful_timeout: 10 -> 7",
        "applied live: plugin:a.description: nothing -> it waits",
        "applied live: plugin:a.processes: 2 -> 1",
        "applied live: plugin:a.max_lifetime: 0 -> 3600",
        "kept: 2 processes",
        "generation 1",
    ]
    after = pids(made)
    assert (after["workers"][0], after["plugin:a"]) == (before["workers"][0], before["plugin:a"][:1])
    assert len(after["workers"]) == 2


def test_a_change_of_the_cluster_replaces_the_workers_alone(made: RunningCluster) -> None:
    """A plugin has what it had when it started, and what is new when it starts again."""
    write_plugin(made, "a")
    made.start()
    before = pids(made)
    made.write_config(proc_name="other")
    done = made.run("reload")
    lines = ["changed: workers, proc_name: rpccluster -> other", "kept: 1 process", "generation 2"]
    assert done.stdout.splitlines() == lines
    after = pids(made)
    assert [name for name in after if after[name] != before[name]] == ["workers"]


@pytest.mark.parametrize(
    "options", [{"run": "no_module:run"}, {"command": "false"}, {"ready": "notify", "ready_timeout": 0.5}]
)
def test_a_plugin_that_does_not_get_ready_is_named_and_the_rest_is_done(
    made: RunningCluster, options: dict[str, object]
) -> None:
    """It waits with its reason; exit 1 names it."""
    write_plugin(made, "a")
    write_plugin(made, "gone")
    made.start()
    before = pids(made)
    if "command" in options:
        made.write_section("plugin:a", options)
    else:
        write_plugin(made, "a", **options)
    made.write_section("plugin:gone", None)
    write_plugin(made, "new")
    done = made.run("reload")
    assert done.returncode == 1
    assert "plugin:a is waiting: " in done.stderr
    assert made.group("plugin:gone") == {}
    assert first(made, "new")["state"] == "ready"
    assert first(made, "a")["state"] in ("waiting", "booting")  # two failures are free
    assert made.worker_pids() == before["workers"]
    write_plugin(made, "a")
    assert made.run("reload").returncode == 0
    assert first(made, "a")["state"] == "ready"


def test_a_mended_plugin_is_started_at_once(made: RunningCluster) -> None:
    """Its section is the same; its pause is forgiven. Another that has done its work is left alone."""
    write_plugin(made, "bad", run="jobs:mended", restart_delay=600, restart_delay_max=600)
    write_plugin(made, "once", run="jobs:once", restart="never")
    made.start()
    wait_until(lambda: first(made, "bad")["state"] == "waiting" and first(made, "bad").get("retry_in_seconds", 0) > 60)
    wait_until(lambda: first(made, "once")["state"] == "finished")
    made.write_module("mendable", "from jobs import wait")
    assert made.run("reload").stdout.splitlines()[0].startswith("kept: ")
    wait_until(lambda: first(made, "bad")["state"] == "ready")
    assert first(made, "once")["state"] == "finished"
    assert made.log_text().count("[once] once") == 1


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("a", {"args": "[1"}, "args: found '[1'"),
        ("b c", {}, "found the name 'b c'"),
        ("b", {"after": "nobody"}, "after: found 'plugin:nobody'"),
        ("b", {"nosuch": 1}, "nosuch: found an unknown key"),
        ("b", {"schedule": "* * * * * *"}, "which has 6 fields"),
    ],
)
def test_a_faulty_section_changes_nothing(
    made: RunningCluster, name: str, options: dict[str, object], said: str
) -> None:
    """Every fault is told by `reload` and by its plan; what else has changed waits, too."""
    write_plugin(made, "a")
    made.start()
    before = pids(made)
    write_plugin(made, name, **options)
    write_plugin(made, "fine")
    for words in (["reload", "--plan"], ["reload"], ["reload", "--all"]):
        done = made.run(*words)
        assert (done.returncode, said in done.stderr) == (1, True)
        assert f"{made.config}:" in done.stderr
    assert pids(made) == before


def test_a_service_that_cannot_boot_leaves_the_plugins_alone(made: RunningCluster) -> None:
    """The workers prove the configuration first."""
    write_plugin(made, "a")
    made.start()
    before = pids(made)
    made.write_config(service="no_module:Class")
    write_plugin(made, "a", args="new")
    write_plugin(made, "b")
    done = made.run("reload")
    assert (done.returncode, "its first worker could not boot" in done.stderr) == (1, True)
    assert pids(made) == before


def test_what_was_stopped_by_hand_stays_stopped(made: RunningCluster) -> None:
    """Also when its section changes; it starts with that when it is told to."""
    write_plugin(made, "a")
    made.start()
    with made.control() as control:
        assert control.call("plugin.stop", "a")
    write_plugin(made, "a", args="new")
    assert made.run("reload").returncode == 0
    assert first(made, "a")["state"] == "stopped"
    with made.control() as control:
        assert control.call("plugin.start", "a")
    made.wait_log("waits with new")


def test_a_section_that_comes_back_while_its_plugin_ends(made: RunningCluster) -> None:
    """It is a plugin again, once the old process has ended."""
    stubborn = "sh -c 'trap : TERM; while :; do sleep 0.1; done'"
    made.write_section("plugin:a", {"command": stubborn, "stop_timeout": 2})
    made.start()
    before = pids(made)
    made.write_section("plugin:a", None)
    with made.launch("reload") as removing:
        wait_until(lambda: first(made, "a")["state"] == "retiring")
        made.write_section("plugin:a", {"command": stubborn, "stop_timeout": 1})
        assert made.run("reload").returncode == 0
        removing.communicate(timeout=20)
    after = pids(made)
    assert after["plugin:a"] and after["plugin:a"] != before["plugin:a"]


def test_a_service_neither_comes_nor_goes(made: RunningCluster) -> None:
    """The workers are there from the start, or never."""
    write_plugin(made, "a")
    made.start()
    before = pids(made)
    made.write_config(service=None, bind=None, number_workers=None)
    done = made.run("reload")
    assert "service: found nothing, expected rpccluster.demo:Demo until the next start" in done.stderr
    assert pids(made) == before


def test_a_reload_that_is_overtaken_is_still_waited_for(made: RunningCluster) -> None:
    """The second has nothing to do itself; both end when the first one's plugin has failed, and name it."""
    made.start()
    write_plugin(made, "late", ready="notify", ready_timeout=2)
    with made.launch("reload") as early:
        wait_until(lambda: made.group("plugin:late"))
        done = made.run("reload")
        _, told = early.communicate(timeout=60)
    for returncode, text in ((early.returncode, told), (done.returncode, done.stderr)):
        assert (returncode, "plugin:late is waiting: it was not ready within ready_timeout" in text) == (1, True)


def test_a_finished_plugin_runs_again_if_it_has_changed(made: RunningCluster) -> None:
    """Not for what is applied live; but it does when its processes are wanted again."""
    write_plugin(made, "once", run="jobs:once", restart="never")
    made.start()
    made.wait_group("plugin:once", "finished")
    write_plugin(made, "once", run="jobs:once", restart="never", description="new")
    assert made.run("reload").returncode == 0
    assert made.group("plugin:once")["state"] == "finished"
    assert made.log_text().count("[once] once") == 1
    write_plugin(made, "once", run="jobs:once", restart="never", description="new", nice=1)
    assert made.run("reload").returncode == 0
    wait_until(lambda: made.log_text().count("[once] once") == 2)
    made.wait_group("plugin:once", "finished")
    write_plugin(made, "once", run="jobs:once", restart="always", restart_delay=0.1, nice=1)
    made.run("reload")
    wait_until(lambda: made.log_text().count("[once] once") > 3)


@pytest.mark.skipif(not FULL_SCALE, reason="it waits for the next minute")
def test_a_run_of_a_schedule_is_not_ended_by_a_change(made: RunningCluster) -> None:
    """The next run has what is new."""
    pytest.importorskip("cronsim")
    write_plugin(made, "job", schedule="* * * * *")
    made.start()
    running = wait_until(lambda: [row["pid"] for row in made.group("plugin:job")["processes"] if row["pid"]], 70)
    write_plugin(made, "job", schedule="* * * * *", args="new")
    done = made.run("reload")
    assert done.stdout.splitlines()[0] == "changed: plugin:job, args: nothing -> new"
    assert is_alive(running[0])
    assert [row["pid"] for row in made.group("plugin:job")["processes"] if row["pid"]] == running
