"""A second group, of a kind that the program does not know, under a real master beside the workers."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from rpccluster.testing import RunningCluster, is_alive, wait_until

PROGRAM = """
import time
from functools import partial
from types import SimpleNamespace

from rpccluster.assembly import assemble, entries
from rpccluster.child.assignment import KindPart
from rpccluster.cli.main import main
from rpccluster.ipc.messages import Ready
from rpccluster.ipc.scoreboard import CommonCell
from rpccluster.master.children.child import Child
from rpccluster.master.children.group import Group
from rpccluster.master.kinds.kind import Booted


class Sleeper:
    name = noun = "sleeper"

    def equip(self, birth):
        return Child(birth), KindPart()

    def hear(self, child, message, descriptors, now):
        return Booted(child) if isinstance(message, Ready) else None

    def arrange(self, group, now):
        pass

    def look(self, group, child, now):
        pass

    def note_end(self, child):
        pass

    def status(self, child, now):
        return {}


def load(assignment):
    return partial(sleep, assignment)


def sleep(assignment):
    assignment.channel.send(Ready([]))
    while True:
        assignment.row[CommonCell.HEARTBEAT] = time.monotonic_ns()
        time.sleep(0.05)


class PartsWithSleepers(assemble.Parts):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        kind, cluster = Sleeper(), self.cluster
        self.groups.kinds["sleeper"] = kind
        section = SimpleNamespace(
            generation=1, options=cluster.options, logs=cluster.logs, staged=None, settings=cluster.settings
        )
        group = Group("sleepers", kind, section, cluster.phase, after=["workers"], wanted=2)
        self.groups.all.append(group)


if __name__ == "__main__":
    entries.ENTRIES["sleeper"] = "with_sleepers"
    assemble.Parts = PartsWithSleepers
    main()
"""


class WithSleepers(RunningCluster):
    """Runs the program with a kind more."""

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, str(self.folder / "with_sleepers.py"), "-c", str(self.config), *arguments]

    def sleepers(self) -> dict[str, object]:
        (group,) = [group for group in self.status()["groups"] if group["name"] == "sleepers"]
        return group

    def sleeping(self) -> list[int]:
        return [each["pid"] for each in self.sleepers()["processes"] if each["state"] == "ready"]


@pytest.fixture
def running(tmp_path):
    made = WithSleepers(tmp_path, {})
    made.write_module("with_sleepers", PROGRAM)
    try:
        yield made.start()
    finally:
        made.stop()


def test_a_group_of_a_new_kind_lives_beside_the_workers(running):
    """Started after them, kept, shown, given no connection; no reload and no drain concerns it; it stops first."""
    wait_until(lambda: running.sleepers()["state"] == "ready")
    victim, other = running.sleeping()
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: len({*running.sleeping()} - {victim}) == 2)  # asked once: between two answers it may die
    with running.client() as client:
        assert client.call("sum", 1, 2) == 3
    present, workers = running.sleeping(), running.worker_pids()
    assert other in present
    assert running.run("reload", "--all").returncode == 0
    assert running.sleeping() == present
    assert not set(running.worker_pids()) & set(workers)
    running.signal(signal.SIGWINCH)
    wait_until(lambda: not running.status()["workers"])
    assert running.sleeping() == present
    assert running.run("scale", "1").returncode == 0
    running.wait_ready(number_workers=1)
    running.signal(signal.SIGTERM)
    assert running.wait() == 0
    assert not any(is_alive(pid) for pid in present)
    log = running.log_text()
    assert log.rindex("Retiring sleeper") < log.rindex("Sleeper exiting") < log.rindex("Retiring worker")
