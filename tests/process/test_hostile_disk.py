"""A disk that takes no more log lines: calls, master and daemon go on as if nothing were the matter."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from rpccluster import RemoteError
from rpccluster.testing import RunningCluster, is_alive, wait_until

SERVICE = """
import logging, os, sys
import gevent

class Loud:
    def pid(self):
        return os.getpid()

    def echo(self, value):
        return value

    def fail(self):
        raise ValueError("x" * 1000)

    def log(self):
        logging.error("of its own: %s", "x" * 1000)

    def log_badly(self):
        logging.error("%d", "x")

    def spawn(self, kind):
        gevent.spawn({"error": self.fail, "exit": sys.exit, "interrupt": self.interrupt}[kind]).join()

    def interrupt(self):
        raise KeyboardInterrupt
"""
LIMIT_BYTES = 16 << 10
SIGXFSZ_BIT = 1 << (signal.SIGXFSZ - 1)


class Limited(RunningCluster):
    """A cluster whose processes may write files of 16 KiB."""

    def command(self, *arguments: str) -> list[str]:
        return ["bash", "-c", f'ulimit -f {LIMIT_BYTES >> 10}; exec "$0" "$@"', *super().command(*arguments)]


def make(kind: type[RunningCluster], folder: Path, log: str, access_log: str) -> RunningCluster:
    """A cluster of ``Loud`` with these logs, relative to its folder."""
    options = {"service": "loud:Loud", "log_file": folder / log, "access_log": folder / access_log}
    made = kind(folder, options)
    made.write_module("loud", SERVICE)
    return made


@pytest.fixture(params=["file size", "no space", "daemon", "daemon, no space"])
def full(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunningCluster]:
    """A cluster whose logs take nothing more, or soon will."""
    if "no space" in request.param:
        running = make(RunningCluster, tmp_path, "/dev/full", "/dev/full")
    else:
        running = make(Limited, tmp_path, "it.log", "access.log")
    if "daemon" in request.param:
        done = running.run("-D")
        assert done.returncode == 0, done.stderr
    else:
        running.start()
    yield running
    running.stop()


def fill(running: RunningCluster) -> None:
    """Log until nothing more is taken, in every way there is."""
    with running.client() as client:
        for number in range(60):
            assert client.call("echo", number) == number
            for method in ("fail", "no\nsuch method"):
                with pytest.raises(RemoteError):
                    client.call(method)
            client.call("log")
            client.call("log_badly")
            for kind in ("error", "exit", "interrupt"):
                client.call("spawn", kind)


def test_calls_go_on_when_the_disk_is_full(full: RunningCluster) -> None:
    """Whatever wants to be logged; the workers are the same afterwards."""
    before = full.status()
    fill(full)
    after = full.status()
    assert [worker["pid"] for worker in after["workers"]] == [worker["pid"] for worker in before["workers"]]
    for key in ("log_file", "access_log"):
        path = Path(str(full.options[key]))
        assert not path.is_file() or LIMIT_BYTES - 2_000 < path.stat().st_size <= LIMIT_BYTES
    for pid in (after["master"]["pid"], *(worker["pid"] for worker in after["workers"])):
        fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        assert int(fields["SigIgn"], 16) & SIGXFSZ_BIT


def test_the_master_does_its_work_when_the_disk_is_full(full: RunningCluster) -> None:
    """A worker that dies is replaced; scaling, reload, reopening, upgrade and stop work."""
    fill(full)
    (pid, _) = full.worker_pids()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len({*full.worker_pids()} - {pid}) == 2)
    assert full.run("scale", "3").returncode == 0
    assert full.run("reload", "--all").returncode == 0
    full.signal(signal.SIGUSR1)
    fill(full)
    old = full.master_pid
    upgraded = full.run("upgrade")
    assert upgraded.returncode == 0, upgraded.stderr
    fill(full)
    master = full.master_pid
    assert master != old
    assert full.run("stop").returncode == 0
    wait_until(lambda: not is_alive(master))


def test_it_logs_again_when_there_is_room(tmp_path: Path) -> None:
    """Nothing has to be done for it but making room."""
    running = make(Limited, tmp_path, "it.log", "access.log")
    try:
        running.start()
        fill(running)
        log = tmp_path / "it.log"
        with open(log, "r+b") as file:
            file.truncate(0)
        with running.client() as client, contextlib.suppress(RemoteError):
            client.call("fail")
        wait_until(lambda: "Method fail failed for 127.0.0.1:" in log.read_text())
    finally:
        running.stop()


def test_a_start_without_room_for_the_pidfile_is_a_fault(tmp_path: Path) -> None:
    """Told in one line, with the contract's exit code."""
    running = make(RunningCluster, tmp_path, "it.log", "access.log")
    running.write_config(pidfile="/dev/full", single_instance=False)
    done = running.run()
    assert done.returncode == 1
    assert done.stderr == "rpccluster: cannot write the pidfile /dev/full: No space left on device\n"
