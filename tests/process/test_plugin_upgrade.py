"""USR2 with plugins: each is restarted once, never two of it at a time unless it wants that, and no caller notices."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from callers import Callers

from rpccluster.testing import RunningCluster, is_alive, wait_until

MakeCluster = Callable[..., RunningCluster]

FULL_SCALE = bool(os.environ.get("RPCCLUSTER_FULL_SCALE"))
PLUGINS = 20 if FULL_SCALE else 5
CONNECTIONS = 100 if FULL_SCALE else 20

JOBS = """
import fcntl
import os
import time


def note(name, what):
    with open("journal", "a") as journal:
        journal.write(f"{name} {what} {os.getpid()} {os.getppid()}\\n")


def alone(args, plugin):
    with open(f"{plugin.name}.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            note(plugin.name, "TWO")
        note(plugin.name, "begins")
        plugin.ready()
        plugin.stopping.wait()
        while not os.path.exists(args):
            time.sleep(0.01)
        note(plugin.name, "ends")


def overlapping(plugin):
    note(plugin.name, "begins")
    time.sleep(0.3)
    note(plugin.name, "ready")  # before it is told: its predecessor may write at once
    plugin.ready()
    plugin.stopping.wait()
    note(plugin.name, "ends")


def answers(plugin):
    while True:
        connection, _ = plugin.listeners[0].accept()
        with connection:
            connection.sendall(b"%d" % os.getpid())


def runs(plugin):
    note(plugin.name, "begins")
    while not os.path.exists("may_end"):
        time.sleep(0.01)
    note(plugin.name, "ends")
"""


@pytest.fixture
def made(make_cluster: MakeCluster) -> RunningCluster:
    """A cluster of two workers that has not started, with the module jobs."""
    cluster = make_cluster(chdir=".")
    cluster.write_module("jobs", JOBS)
    return cluster


def alone(cluster: RunningCluster, *names: str, until: str = "journal") -> None:
    """Write plugins of which there must never be two; when told, they end once there is the file ``until``."""
    for name in names:
        options = {"run": "jobs:alone", "args": until, "ready": "notify", "stop_timeout": 60}
        cluster.write_section(f"plugin:{name}", options)


def journal(cluster: RunningCluster) -> list[list[str]]:
    """Who has begun and ended: name, what, pid, pid of the master."""
    path = cluster.folder / "journal"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def states(cluster: RunningCluster) -> dict[str, str]:
    return {group["name"]: group["state"] for group in cluster.status()["groups"] if group["kind"] == "plugin"}


def all_ready(cluster: RunningCluster) -> bool:
    return set(states(cluster).values()) == {"ready"}


def test_all_plugins_are_replaced_one_at_a_time_under_load(made: RunningCluster) -> None:
    """No call of any connection is lost; no plugin has two processes at any time, and each has one at the end."""
    names = [f"p{number}" for number in range(PLUGINS)]
    alone(made, *names)
    made.start()
    wait_until(lambda: all_ready(made))
    with Callers(made.address, CONNECTIONS, depth=2, pause=0.01, method="echo") as callers:
        old = made.master_pid
        assert made.run("upgrade").stderr == ""
        new = made.master_pid
        assert all_ready(made)
        wait_until(lambda: not is_alive(old), 60)
    assert new != old
    assert callers.faults == []
    told = journal(made)
    assert [line for line in told if line[1] == "TWO"] == []
    of_new = [line for line in told if line[3] == str(new)]
    assert sorted(line[0] for line in of_new) == sorted(names)
    replaced = [line[:2] for line in told[PLUGINS:]]
    assert replaced == [[name, what] for name in names for what in ("ends", "begins")]
    print(f"{PLUGINS} plugins, {CONNECTIONS} connections, {callers.answered} calls answered, none lost")


def test_the_order_is_that_of_after(made: RunningCluster) -> None:
    """Those that come before have had their turn; workers that come after a plugin do not wait for it."""
    for name, after in (("a", "b"), ("b", "c"), ("c", "")):
        options = {"run": "jobs:alone", "args": "journal", "ready": "notify", "after": after}
        made.write_section(f"plugin:{name}", options)
    made.write_config(after="a")
    made.start()
    wait_until(lambda: all_ready(made))
    assert made.run("upgrade").returncode == 0
    assert [line[0] for line in journal(made) if line[1] == "begins"] == ["c", "b", "a"] * 2


def test_a_successor_is_ready_before_its_predecessor_goes(made: RunningCluster) -> None:
    """Where the plugin says that they may overlap."""
    made.write_section("plugin:it", {"run": "jobs:overlapping", "ready": "notify", "overlap": "successor"})
    made.start()
    wait_until(lambda: all_ready(made))
    old = made.master_pid
    assert made.run("upgrade").returncode == 0
    wait_until(lambda: not is_alive(old), 60)
    assert [line[1] for line in journal(made)] == ["begins", "ready", "begins", "ready", "ends"]
    assert all_ready(made)


def test_what_was_stopped_by_hand_stays_stopped(made: RunningCluster) -> None:
    """And says so; what was started by hand goes on."""
    alone(made, "stopped")
    made.write_section("plugin:started", {"run": "jobs:alone", "args": "journal", "autostart": "false"})
    made.start()
    assert made.run("plugin", "stop", "stopped").returncode == 0
    assert made.run("plugin", "start", "started").returncode == 0
    old = made.master_pid
    assert made.run("upgrade").returncode == 0
    wait_until(lambda: not is_alive(old), 60)
    assert states(made) == {"plugin:stopped": "stopped", "plugin:started": "ready"}
    assert made.group("plugin:stopped")["processes"][0]["reason"] == "by hand"


def test_one_that_cannot_boot_is_waiting_and_the_upgrade_stands(made: RunningCluster) -> None:
    """The command names it; the others have been replaced all the same."""
    alone(made, "first", "second")
    made.write_section("plugin:broken", {"run": "jobs:overlapping", "ready": "notify"})
    alone(made, "last")
    made.start()
    wait_until(lambda: all_ready(made))
    old = made.master_pid
    made.write_module("jobs", JOBS.replace("def overlapping", "def gone"))
    done = made.run("upgrade")
    assert done.returncode == 1
    assert "plugin broken is waiting: cannot load 'jobs:overlapping'" in done.stderr
    wait_until(lambda: not is_alive(old), 60)
    expected = {
        "plugin:first": "ready",
        "plugin:second": "ready",
        "plugin:broken": "waiting",
        "plugin:last": "ready",
    }
    wait_until(lambda: states(made) == expected)  # the broken one is tried again now and then
    assert made.master_pid != old


def test_callers_of_a_plugin_wait_and_are_not_refused(made: RunningCluster) -> None:
    """Its listener is open all the while; the one in the new master answers them."""
    made.write_section("plugin:server", {"run": "jobs:answers", "bind": "127.0.0.1:0"})
    made.start()
    wait_until(lambda: all_ready(made))
    (text,) = made.group("plugin:server")["listeners"]
    port = int(text.rpartition(":")[2])
    old = made.master_pid
    before = ask(port)
    made.signal(signal.SIGUSR2)
    found = set()
    while is_alive(old):
        found.add(ask(port))
    after = ask(port)
    assert after not in ("", before)
    assert found <= {before, "", after}


def ask(port: int) -> str:
    """What is answered; nothing by a process that has ended meanwhile. Raises if the connection is refused."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection, contextlib.suppress(ConnectionError):
        return connection.recv(100).decode()
    return ""


def test_a_scheduled_run_that_goes_on_may_end(made: RunningCluster) -> None:
    """It is not stopped within graceful_timeout, and the new master starts no second one meanwhile."""
    pytest.importorskip("cronsim")
    if not FULL_SCALE:
        pytest.skip("it waits for the next minute")
    made.write_section("plugin:nightly", {"run": "jobs:runs", "schedule": "* * * * *"})
    made.start()
    wait_until(lambda: journal(made), 65)
    old = made.master_pid
    made.signal(signal.SIGUSR2)
    wait_until(lambda: made.master_pid != old, 20)
    time.sleep(0.5)
    assert [line[1] for line in journal(made)] == ["begins"]
    (made.folder / "may_end").touch()
    wait_until(lambda: not is_alive(old), 20)
    assert [line[1] for line in journal(made)][:2] == ["begins", "ends"]


@pytest.fixture
def slow_to_end(made: RunningCluster) -> Iterator[RunningCluster]:
    made.write_config(graceful_timeout=60)
    alone(made, "slow", until="may_end")
    made.start()
    wait_until(lambda: all_ready(made))
    yield made


def test_a_stop_while_plugins_are_replaced_waits_for_the_old_ones(slow_to_end: RunningCluster) -> None:
    """When the stop has returned, nothing of either master lives."""
    made = slow_to_end
    old = made.master_pid
    made.signal(signal.SIGUSR2)
    wait_until(lambda: made.master_pid != old)
    with made.control() as control, ThreadPoolExecutor(1) as pool:
        stopped = pool.submit(control.call, "stop")
        wait_until(lambda: made.status()["master"]["state"] == "stopping")
        (made.folder / "may_end").touch()
        stopped.result()
    assert [line[1] for line in journal(made)] == ["begins", "ends"]
    wait_until(lambda: not is_alive(old))


def test_a_kill_of_the_old_master_leaves_one_of_each(slow_to_end: RunningCluster) -> None:
    """Its plugin ends with it, and the new master's begins afterwards."""
    made = slow_to_end
    old = made.master_pid
    made.signal(signal.SIGUSR2)
    wait_until(lambda: made.master_pid != old)
    os.kill(old, signal.SIGKILL)
    wait_until(lambda: all_ready(made))
    assert [line[1] for line in journal(made)] == ["begins", "begins"]
