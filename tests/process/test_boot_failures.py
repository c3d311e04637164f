"""Workers that cannot boot: on the start the cluster says why and ends; later it goes on trying, ever more slowly."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest
from worker_killed import raises_worker_lost

from rpccluster.testing import RunningCluster, is_alive, wait_until

NO_WORKER, NO_SERVICE = 3, 4

HOOK_FAILS = """
from rpccluster import Service

class It(Service):
    def worker_started(self, worker):
        raise RuntimeError("the database is down")
    def hello(self):
        return "hello"
"""
EXITS = "import os\nos._exit(7)\n"
KILLS_ITSELF = "import os\nos.kill(os.getpid(), 11)\n"
HANGS = "while True: pass\n"
MORTAL = """
import os

class It:
    def die(self):
        os._exit(9)
    def pid(self):
        return os.getpid()
"""

CANNOT_BOOT = [
    (HOOK_FAILS, "RuntimeError: the database is down"),
    (EXITS, "exit code 7"),
    (KILLS_ITSELF, "signal SIGSEGV"),
]
NOT_LOADED = [
    ("class It:\n    pass\n", "found no public methods in It"),
    ("import no_such_thing\n", "ModuleNotFoundError: No module named 'no_such_thing'"),
    ("def broken(:\n", "SyntaxError"),
    ("class Other:\n    pass\n", "has no attribute 'It'"),
    ("class It:\n    def __init__(self):\n        raise OSError('no licence')\n", "OSError: no licence"),
    ("raise SystemExit('not today')\n", "SystemExit: not today"),
]


def with_service(make_cluster, source: str, **options: object) -> RunningCluster:
    """A cluster, not started, of the service It in a module of its own."""
    made = make_cluster(service="its_service:It", **options)
    made.write_module("its_service", source)
    return made


@pytest.mark.parametrize("flags", [(), ("-D",)], ids=["foreground", "daemon"])
@pytest.mark.parametrize(("source", "reason"), CANNOT_BOOT)
def test_no_worker_can_boot(make_cluster, source, reason, flags):
    """Exit code 3 with the reason on stderr, for a daemon, too; nothing is left behind."""
    made = with_service(make_cluster, source)
    done = made.run(*flags)
    assert done.returncode == NO_WORKER, done.stderr
    assert f"no worker could boot: {reason}" in done.stderr
    assert not made.left_behind()


@pytest.mark.parametrize(("source", "reason"), NOT_LOADED)
def test_the_service_cannot_be_loaded(make_cluster, source, reason):
    """Exit code 4 with the reason on stderr, of ``--check-config`` as of a start; nothing is left behind."""
    made = with_service(make_cluster, source)
    done = made.run()
    assert done.returncode == NO_SERVICE, done.stderr
    assert re.search(f"no worker could boot: .*{re.escape(reason)}", done.stderr)
    assert not made.left_behind()
    check = made.run("--check-config")
    assert check.returncode == NO_SERVICE
    assert reason in check.stderr


def test_a_daemon_says_what_is_wrong_with_the_service(make_cluster):
    """On the user's stderr, though the log goes elsewhere; a module that does not exist is named."""
    made = make_cluster(service="no_such:It", log_file=make_cluster().folder / "it.log")
    done = made.run("-D")
    assert done.returncode == NO_SERVICE
    said = "no worker could boot: cannot load the service 'no_such:It': ModuleNotFoundError: No module named 'no_such'"
    assert f"rpccluster: {said}" in done.stderr
    assert said in Path(str(made.options["log_file"])).read_text()
    assert not made.left_behind()


def test_a_boot_that_hangs_shows_where(make_cluster):
    """The log line says that it is the boot, and the stack is dumped before the worker is killed."""
    done = with_service(make_cluster, HANGS, number_workers=1, timeout=3).run()
    assert done.returncode == NO_WORKER
    assert "no worker could boot: it hung" in done.stderr
    assert re.search(r"WORKER TIMEOUT \(pid: \d+\) in its boot", done.stderr)
    assert re.search(r'File ".*its_service.py", line 1 in <module>', done.stderr)


def test_workers_that_die_in_a_loop_are_started_ever_later(make_cluster):
    """Each dies by its own doing soon after it was ready: the log says why, and that the next start waits."""
    made = with_service(make_cluster, MORTAL, number_workers=1).start()
    for deaths in range(1, 5):
        wait_until(made.worker_pids)
        with made.client() as client, raises_worker_lost():
            client.call("die")
        wait_until(lambda deaths=deaths: made.log_text().count("died: exit code 9") == deaths)
    told = r"Worker slot 0 died \d times in a row \(last: exit code 9\): restarting it in ([\d.]+) seconds"
    pauses = re.findall(told, made.log_text())
    assert pauses == ["1", "2"]
    assert wait_until(made.worker_pids)


def test_a_worker_that_lives_on_hides_no_loop(make_cluster):
    """Promise 2 counts per slot: beside one that serves, the other is not started again and again."""
    code = "import os\nimport rpccluster\n\nclass It(rpccluster.Service):\n    def ping(self): return 1\n"
    hooks = "    def worker_started(self, worker):\n        if worker.slot: __import__('gevent').spawn(os._exit, 9)\n"
    made = with_service(make_cluster, code + hooks, number_workers=2)
    made.start(are_ready=False)
    made.wait_log("Worker slot 1 died 4 times in a row (last: exit code 9): restarting it in 2 seconds")
    assert made.log_text().count("died: exit code 9") == 4
    assert made.log_text().count("Booting worker") == 5


def test_an_end_with_status_0_comes_once_a_second_at_most(make_cluster):
    """It is no failure, and the pause never grows; but it costs no whole CPU either."""
    code = "import os\nimport rpccluster\n\nclass It(rpccluster.Service):\n    def ping(self): return 1\n"
    hooks = "    def worker_started(self, worker):\n        if worker.slot: __import__('gevent').spawn(os._exit, 0)\n"
    made = with_service(make_cluster, code + hooks, number_workers=2)
    made.start(are_ready=False)
    began = time.monotonic()
    wait_until(lambda: made.log_text().count("died: exit code 0") == 4)
    assert time.monotonic() - began > 2.5
    assert "in a row" not in made.log_text()


def test_killed_from_outside_is_no_loop(make_cluster):
    """A kill -9 is nobody's fault here: the successor comes at once, however often."""
    made = with_service(make_cluster, MORTAL, number_workers=1).start()
    for _ in range(6):
        victim = wait_until(made.worker_pids)[0]
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda victim=victim: made.worker_pids() not in ([], [victim]))
    assert "in a row" not in made.log_text()


def test_a_service_broken_later_takes_nobody_along(make_cluster):
    """The replacement of a worker cannot boot: the others serve on, starts back off, and a repair is found."""
    made = with_service(make_cluster, MORTAL, number_workers=2).start()
    victim, survivor = made.worker_pids()
    made.write_module("its_service", "raise RuntimeError('broken meanwhile')\n")
    os.kill(victim, signal.SIGKILL)
    made.wait_log("restarting it in 2 seconds")
    assert "could not boot: cannot load the service 'its_service:It': RuntimeError: broken meanwhile" in made.log_text()
    assert made.worker_pids() == [survivor]
    with made.client() as client:
        assert client.call("pid") == survivor
    made.write_module("its_service", MORTAL)
    wait_until(lambda: len(made.worker_pids()) == 2)
    assert is_alive(survivor)


def test_some_workers_boot(make_cluster):
    """A start of which one worker fails serves with the others and goes on trying."""
    flag = (  # both workers boot at once, and one of them has it
        "import os\ntry:\n    os.unlink(FLAG)\nexcept FileNotFoundError:\n    pass\n"
        "else:\n    raise RuntimeError('only once')\n"
    )
    made = make_cluster(service="its_service:It", number_workers=2)
    taken = made.folder / "flag"
    taken.touch()
    made.write_module("its_service", f"FLAG = {str(taken)!r}\n{flag}{MORTAL}")
    made.start()
    assert "could not boot: cannot load the service 'its_service:It': RuntimeError: only once" in made.log_text()
    assert len(made.worker_pids()) == 2
