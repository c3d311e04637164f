"""The system refuses the master what it asks for, call by call: strace(1) answers in the kernel's place.

Nothing ends the master or a worker, and what was asked for meanwhile is done, or refused with a log line.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from strace import injected

from rpccluster.ipc.scoreboard import MOST_DESCRIPTORS
from rpccluster.testing import RunningCluster, is_alive, wait_until

FULL_SCALE = bool(os.environ.get("RPCCLUSTER_FULL_SCALE"))
FORK = "?fork,?vfork,?clone,?clone3"
OPEN = "?open,openat"
CASES = [
    (FORK, "EAGAIN"),
    ("socketpair", "EMFILE"),
    (OPEN, "ENFILE"),
    ("?epoll_wait,?epoll_pwait,?epoll_pwait2", "ENOMEM"),
    ("epoll_ctl", "ENOSPC"),
    ("sendmsg", "ENOBUFS"),
    ("recvmsg", "ENOMEM"),
    ("write", "ENOSPC"),
]
if FULL_SCALE:
    CASES += [
        (FORK, "ENOMEM"),
        ("socketpair", "ENFILE"),
        ("socketpair", "ENOMEM"),
        (OPEN, "EMFILE"),
        (OPEN, "ENOMEM"),
        (OPEN, "ENOSPC"),
        ("epoll_ctl", "ENOMEM"),
        ("sendmsg", "ENOMEM"),
        ("write", "EIO"),
        ("?dup,?dup2,?dup3", "EMFILE"),
        ("wait4", "ENOMEM"),
    ]

pytestmark = pytest.mark.skipif(not shutil.which("strace"), reason="there is no strace(1) here")


@contextlib.contextmanager
def _refused(pid: int, calls: str, error: str, notes: Path) -> Iterator[None]:
    """Every one of these calls of the process fails, at least one of them; the process is let go afterwards."""
    with injected(pid, calls, f"error={error}", notes):
        yield
        wait_until(lambda: "(INJECTED)" in notes.read_text(), what=f"{calls} has been refused")


@pytest.fixture(scope="module")
def pressed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    """One cluster for all: nothing here may harm it."""
    folder = tmp_path_factory.mktemp("injected")
    running = RunningCluster(folder, {"number_workers": 1, "log_file": folder / "cluster.log"})
    yield running.start()
    running.stop()


@pytest.mark.parametrize(("calls", "error"), CASES, ids=lambda value: value.strip("?").partition(",")[0])
def test_what_the_system_refuses_ends_nobody(pressed, tmp_path, calls, error):
    """A reload, a worker more and new log files are asked for; connections stay, and so does the master."""
    before = pressed.wait_ready()["master"]["pid"]
    with pressed.client() as client:
        assert client.call("echo", 1) == 1
        with _refused(before, calls, error, tmp_path / "notes"):
            for signum in (signal.SIGUSR1, signal.SIGTTIN, signal.SIGHUP):
                os.kill(before, signum)
        assert client.call("echo", 2) == 2
    assert is_alive(before)
    assert pressed.wait_ready()["master"]["pid"] == before
    assert pressed.run("reload", "--all").returncode == 0
    pressed.wait_ready(number_workers=1)


@pytest.mark.parametrize(("calls", "error"), [("socketpair", "EMFILE"), (FORK, "EAGAIN"), ("epoll_ctl", "ENOMEM")])
def test_an_upgrade_that_the_system_refuses(pressed, tmp_path, calls, error):
    """The old master says so, and goes on."""
    before = pressed.wait_ready()["master"]["pid"]
    (pressed.folder / "cluster.log").write_text("")
    with _refused(before, calls, error, tmp_path / "notes"):
        os.kill(before, signal.SIGUSR2)
        told = ("Cannot start a new master: ", "Upgrade failed, nothing has changed: cannot watch it")
        wait_until(lambda: any(text in pressed.log_text() for text in told))
    assert pressed.wait_ready()["master"]["pid"] == before


def test_the_master_raises_its_own_limit(make_cluster):
    """Its descriptors must suffice for all workers there may be, and for connections: in transit, and their copies."""
    running = make_cluster(number_workers=1)
    limited = ["sh", "-c", 'ulimit -Sn 64; exec "$@"', "sh", *running.command()]
    with subprocess.Popen(limited, cwd=running.folder, stderr=subprocess.DEVNULL) as process:
        running.wait_ready()
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        soft, hard = next(line for line in limits.splitlines() if line.startswith("Max open files")).split()[3:5]
        assert hard == "unlimited" or int(soft) == min(int(hard), 10_000 + MOST_DESCRIPTORS + 256)
        running.stop()
        process.wait(10)
