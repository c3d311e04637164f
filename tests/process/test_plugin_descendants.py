"""What a plugin has started ends with it, also in other groups and sessions; a stranger lives, whatever its number."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from patience import within

from rpccluster.testing import RunningCluster, is_alive, wait_until

MakeCluster = Callable[..., RunningCluster]

STOP_SECONDS = 1.0

TREE = """
import os
import signal
import subprocess
import sys
import time


def stay():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with open("pids", "a") as pids:
        pids.write(f"{os.getpid()}\\n")
    time.sleep(1000)


def fork(*steps):
    if os.fork() == 0:
        for step in steps:
            step()
        stay()


def leave_alone():  # a leader that has ended; its group lives on
    os.setpgid(0, 0)
    if os.fork():
        os._exit(0)


def detach():  # as daemons do
    os.setsid()
    if os.fork():
        os._exit(0)


def tree():
    for _ in range(10):
        fork()
        fork(os.setsid)
        fork(detach)
        fork(leave_alone)
        subprocess.Popen([sys.executable, "-c", "import tree; tree.stay()"], start_new_session=True)
    stay()
"""


@pytest.fixture
def cluster(make_cluster: MakeCluster) -> RunningCluster:
    """A running one whose plugin has a tree of 50 processes, all deaf to TERM."""
    made = make_cluster(number_workers=1, chdir=".")
    made.write_module("tree", TREE)
    made.write_section("plugin:tree", {"run": "tree:tree", "stop_timeout": STOP_SECONDS, "restart": "never"})
    made.start()
    wait_until(lambda: len(family(made)) == 51, 60)
    return made


def family(cluster: RunningCluster) -> list[int]:
    """The pids of the plugin and its descendants."""
    pids = cluster.folder / "pids"
    return [int(line) for line in pids.read_text().split()] if pids.exists() else []


def alive(cluster: RunningCluster) -> list[int]:
    return [pid for pid in family(cluster) if is_alive(pid)]


def leader(cluster: RunningCluster) -> int:
    return int(cluster.group("plugin:tree")["processes"][0]["pid"])


def test_nothing_of_a_killed_plugin_lives(cluster: RunningCluster) -> None:
    """Its master sees its end, and ends the rest; the worker goes on."""
    workers = cluster.worker_pids()
    os.kill(leader(cluster), signal.SIGKILL)
    wait_until(lambda: not alive(cluster), within(2))
    cluster.wait_log("Killed what plugin tree had left outside of its process group: 4")
    assert cluster.worker_pids() == workers


def test_nothing_of_a_deaf_plugin_lives_after_a_stop(cluster: RunningCluster) -> None:
    """Within its stop_timeout and a second."""
    cluster.signal(signal.SIGTERM)
    wait_until(lambda: not alive(cluster), within(STOP_SECONDS + 1))
    assert cluster.wait() == 0


def test_nothing_of_a_plugin_that_is_stopped_by_hand_lives(cluster: RunningCluster) -> None:
    """When the command returns: after stop_timeout, or a second more."""
    done = cluster.run("plugin", "stop", "tree")
    assert done.returncode == 0, done.stderr
    wait_until(lambda: not alive(cluster), within(1))
    assert cluster.group("plugin:tree")["state"] == "stopped"


def test_nothing_of_a_plugin_lives_after_a_quick_stop(cluster: RunningCluster) -> None:
    """When the master has ended, nothing is left."""
    cluster.signal(signal.SIGQUIT)
    assert cluster.wait() == 0
    wait_until(lambda: not alive(cluster), within(1))  # each has been killed, if it has not run since


def test_nothing_of_a_plugin_lives_after_a_kill_of_the_master(cluster: RunningCluster) -> None:
    """Within two seconds."""
    os.kill(cluster.master_pid, signal.SIGKILL)
    wait_until(lambda: not alive(cluster), within(2))


def test_a_stranger_that_has_taken_the_number_lives(make_cluster: MakeCluster) -> None:
    """When a plugin has ended anybody may get its number, and neither master nor warden kills that one."""
    made = make_cluster(number_workers=1)
    command = f"sh -c 'while [ ! -e {made.folder}/enough ]; do sleep 0.05; done'"
    made.write_section("plugin:short", {"command": command, "restart": "never"})
    made.start()
    ended = wait_until(lambda: made.group("plugin:short")["processes"][0]["pid"])
    (made.folder / "enough").touch()
    wait_until(lambda: made.group("plugin:short")["state"] == "finished")
    warden = made.status()["master"]["warden_pid"]
    with stranger(ended) as process:
        os.kill(made.master_pid, signal.SIGKILL)
        made.wait_log("is gone: killed its 1 process groups")
        wait_until(lambda: not is_alive(warden))
        assert is_alive(process)


@contextlib.contextmanager
def stranger(pid: int) -> Iterator[int]:
    """A process of another one's former number, which leads a group of that number; it is ended."""
    for _ in range(20):
        try:
            Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1))
        except OSError:
            pytest.skip("only root may say which pid comes next")
        process = subprocess.Popen(["sleep", "60"], start_new_session=True)
        if process.pid == pid:
            break
        process.kill()
        process.wait()
    else:
        pytest.skip(f"the number {pid} cannot be had again")
    try:
        yield pid
    finally:
        process.kill()
        process.wait()
