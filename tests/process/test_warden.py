"""kill -9 of the master: within two seconds nothing of the family lives, whatever it has started."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable

import psutil
from patience import within

from rpccluster.testing import RunningCluster, is_alive, title_of, wait_until

Cluster = Callable[..., RunningCluster]

SERVICE = """
import os, subprocess
from rpccluster import Service

class Parent(Service):
    def leave(self, seconds):
        program = subprocess.Popen(["sh", "-c", "trap '' TERM HUP; sleep $0 & sleep $0", str(seconds)])
        return program.pid

    def leave_alone(self, seconds):
        return subprocess.Popen(["sleep", str(seconds)], start_new_session=True).pid
"""


def _family(running: RunningCluster) -> list[psutil.Process]:
    return psutil.Process(running.master_pid).children(recursive=True)


def _warden(running: RunningCluster) -> int:
    return int(running.status()["master"]["warden_pid"])


def _parents(make_cluster: Cluster, **options: object) -> RunningCluster:
    running = make_cluster(service="parent:Parent", **{"number_workers": 2, **options})
    running.write_module("parent", SERVICE)
    return running.start()


def test_nothing_outlives_a_killed_master(make_cluster: Cluster) -> None:
    """Also not the programs that a service has started, except those in a session of their own: they are its choice."""
    running = _parents(make_cluster)
    with running.client() as client:
        client.call("leave", 60)
        alone = client.call("leave_alone", 60)
    family = wait_until(lambda: len(found := _family(running)) == 7 and found)
    assert [each.pid for each in family if title_of(each.pid).startswith("rpccluster: warden [")] == [_warden(running)]
    os.kill(running.master_pid, signal.SIGKILL)
    wait_until(lambda: [each.pid for each in family if is_alive(each.pid)] == [alone], within(2))
    running.wait_log("is gone: killed its 2 process groups")
    os.kill(alone, signal.SIGKILL)


def test_a_graceful_end_ends_it_without_a_word(make_cluster: Cluster) -> None:
    """Before the master ends: a stop leaves no process at all."""
    running = _parents(make_cluster)
    family = _family(running)
    assert running.run("stop").returncode == 0
    assert running.wait() == 0
    assert not any(is_alive(each.pid) for each in family)
    assert "is gone" not in running.log_text()


def test_it_is_started_again_when_it_is_killed(make_cluster: Cluster) -> None:
    """However often, and the last one does what the first would have done."""
    running = _parents(make_cluster)
    for _ in range(3):
        killed = _warden(running)
        os.kill(killed, signal.SIGKILL)
        running.wait_log(f"The warden (pid: {killed}) has ended: starting another one")
        wait_until(lambda killed=killed: _warden(running) not in (0, killed))  # type: ignore[misc]
    with running.client() as client:
        client.call("leave", 60)
    family = _family(running)
    os.kill(running.master_pid, signal.SIGKILL)
    wait_until(lambda: not any(is_alive(each.pid) for each in family), within(2))


def test_signals_for_the_cluster_do_not_end_it(make_cluster: Cluster) -> None:
    """A pkill by name, and a terminal's."""
    running = _parents(make_cluster)
    warden = _warden(running)
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        os.kill(warden, signum)
    assert running.run("reload", "--all").returncode == 0
    assert _warden(running) == warden
    assert os.getsid(warden) == warden


def test_it_holds_nothing_of_the_masters(make_cluster: Cluster) -> None:
    """No listener, no log, no pidfile; of a daemon not even stdout, which its shell may read to the end."""
    running = make_cluster(number_workers=1)
    running.write_config(log_file=running.log)
    done = subprocess.run(running.command("--daemon"), cwd=running.folder, capture_output=True, timeout=60)
    assert done.returncode == 0
    folder = f"/proc/{_warden(running)}/fd"
    held = wait_until(lambda: [os.readlink(f"{folder}/{name}") for name in os.listdir(folder)])
    assert sorted(each.partition(":")[0] for each in held) == ["/dev/null"] * 3 + ["socket"]
    assert running.run("stop").returncode == 0


def test_each_master_of_an_upgrade_has_its_own(make_cluster: Cluster) -> None:
    """The old one's ends with the old master, without a word, and kills nobody."""
    running = _parents(make_cluster)
    old, warden = running.master_pid, _warden(running)
    assert running.run("upgrade").returncode == 0
    wait_until(lambda: not is_alive(old) and not is_alive(warden))
    running.wait_ready()
    assert _warden(running) != warden
    assert "is gone" not in running.log_text()
    family = _family(running)
    os.kill(running.master_pid, signal.SIGKILL)
    wait_until(lambda: not any(is_alive(each.pid) for each in family), within(2))


def test_it_is_small(make_cluster: Cluster) -> None:
    """Smaller than an idle master of its own would be: it shares what that does not write to."""
    running = _parents(make_cluster)
    info = psutil.Process(_warden(running)).memory_full_info()
    print(f"warden: {info.uss} bytes of its own, {info.rss} resident")
    assert info.uss < 16 << 20
