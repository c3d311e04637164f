"""``-D``: the parent answers for the daemon, and the daemon has nothing left of the parent."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
from pathlib import Path

from rpccluster import Client
from rpccluster.testing import RunningCluster, is_alive, wait_until


def process_of(pid: int) -> dict[str, int]:
    """Parent, process group and session of a process, from proc(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return dict(zip(("parent", "group", "session"), map(int, fields[1:4])))


def standard_files(pid: int) -> list[str]:
    """Where stdin, stdout and stderr of a process lead."""
    return [os.readlink(f"/proc/{pid}/fd/{number}") for number in range(3)]


def daemon_of(made: RunningCluster) -> int:
    """The daemon's pid, from its pidfile."""
    return int((made.folder / "cluster.pid").read_text())


def test_the_parent_answers_when_the_workers_are_up(make_cluster):
    """Exit code 0 and at that very moment every worker serves; it runs apart from whoever started it."""
    made = make_cluster(number_workers=2, log_file=make_cluster().folder / "it.log")
    done = made.run("-D")
    assert (done.returncode, done.stdout) == (0, "")
    status = made.status()
    assert status["master"]["state"] == "running"
    assert [worker["state"] for worker in status["workers"]] == ["ready", "ready"]
    master = daemon_of(made)
    assert status["master"]["pid"] == master
    process = process_of(master)
    assert process["session"] not in (master, os.getsid(0))
    assert process["parent"] != os.getpid()
    log = str(made.options["log_file"])
    assert standard_files(master) == ["/dev/null", log, log]
    address = status["master"]["listeners"][0]
    assert done.stderr == f"rpccluster: listening at {address}, logging to {log}\n"
    with Client(address) as client:
        assert client.call("sum", 1, 2) == 3
    assert made.run("stop").returncode == 0
    wait_until(lambda: not is_alive(master))
    assert (made.folder / "cluster.pid").read_text() == ""


def test_without_a_log_it_writes_nowhere(make_cluster):
    """What it has to say on the start is said; afterwards the terminal is the user's again."""
    made = make_cluster(daemonize=True, number_workers=1)
    done = made.run()
    assert done.returncode == 0
    assert re.search(r"\[INFO\] Listening at: tcp://127\.0\.0\.1:\d+ ", done.stderr)
    assert standard_files(daemon_of(made)) == ["/dev/null"] * 3
    assert standard_files(made.worker_pids()[0])[0] == "/dev/null"


def test_what_a_service_prints_goes_to_the_log(make_cluster):
    """Nothing of the daemon or its workers holds the user's terminal; a reopened log gets the prints, too."""
    made = make_cluster(service="loud:It", number_workers=1, log_file=make_cluster().folder / "it.log")
    made.write_module("loud", "class It:\n    def loud(self, text):\n        print(text, flush=True)\n")
    assert made.run("-D").returncode == 0
    log = Path(str(made.options["log_file"]))
    with made.client() as client:
        client.call("loud", "one")
        assert "one\n" in log.read_text()
        log.rename(f"{log}.1")
        made.signal(signal.SIGUSR1)
        wait_until(log.exists)
        wait_until(lambda: client.call("loud", "two") or "two\n" in log.read_text())
    for pid in (daemon_of(made), *made.worker_pids()):
        assert standard_files(pid)[1:] == [str(log)] * 2


def test_closed_standard_descriptors(make_cluster):
    """Started with stdin, stdout and stderr closed, no socket and no file takes their numbers."""
    made = make_cluster(number_workers=1)
    command = f"exec {shlex.join(made.command('-D'))} <&- >&- 2>&-"
    assert subprocess.run(["sh", "-c", command], timeout=60, check=False).returncode == 0
    for pid in (daemon_of(made), *made.worker_pids()):
        assert standard_files(pid) == ["/dev/null"] * 3
    assert made.run("-D").returncode == 1
    with made.client() as client:
        assert client.call("sum", 1, 2) == 3


def test_a_second_daemon_is_refused(make_cluster):
    """The parent's exit code is 1 and its message names the pid that runs."""
    made = make_cluster(number_workers=1)
    assert made.run("-D").returncode == 0
    again = made.run("-D")
    assert again.returncode == 1
    assert again.stderr == (
        f"rpccluster: rpccluster already runs with pid {daemon_of(made)} (pidfile {made.folder}/cluster.pid); "
        "stop it first, or set another pidfile\n"
    )
    assert made.run("status").returncode == 0


def test_the_parent_waits_as_long_as_the_service_takes(make_cluster):
    """A slow import is waited for; a daemon that is killed meanwhile is exit code 1."""
    made = make_cluster(service="slow:It", number_workers=1)
    made.write_module(
        "slow",
        "import os, time\n"
        "open(os.environ['MARK'], 'w').close()\n"
        "while os.path.exists(os.environ['MARK']): time.sleep(0.02)\n"
        "class It:\n"
        "    def hello(self): return 'hello'\n",
    )
    mark = made.folder / "mark"
    os.environ["MARK"] = str(mark)
    try:
        waiting = RunningCluster(made.folder, made.options).launch("-D")
        wait_until(mark.exists)
        assert waiting.poll() is None
        mark.unlink()
        assert waiting.wait(30) == 0
        assert made.run("stop").returncode == 0
        waiting = RunningCluster(made.folder, made.options).launch("-D")
        wait_until(mark.exists)
        os.kill(daemon_of(made), signal.SIGKILL)
        assert waiting.wait(30) == 1
    finally:
        mark.unlink(missing_ok=True)
        del os.environ["MARK"]


def test_relative_paths_begin_where_it_was_started(make_cluster, monkeypatch):
    """The daemon, its reloads and its logs find them although the daemon's folder may be another."""
    made = make_cluster(number_workers=1)
    apart = made.folder / "apart"
    apart.mkdir()
    made.write_config(log_file="it.log", chdir="apart", unix_socket="it.sock")
    monkeypatch.chdir(made.folder)
    made.config = Path("cluster.ini")
    assert made.run("-D").returncode == 0
    assert (made.folder / "it.log").exists()
    os.rename("it.log", "old.log")
    made.signal(signal.SIGUSR1)
    wait_until((made.folder / "it.log").exists)
    assert made.run("reload", "--all").returncode == 0
    with socket.socket(socket.AF_UNIX) as probe:
        probe.connect("it.sock")
    assert os.readlink(f"/proc/{made.worker_pids()[0]}/cwd") == str(apart)
