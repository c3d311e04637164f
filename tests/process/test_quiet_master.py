"""A master of idle workers sleeps: it wakes when something happens or is due, and has no tick."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from patience import within

from rpccluster.testing import wait_until

QUIET_SECONDS = 11.0
MOST_WAKEUPS = 3  # the paths are looked after every ten seconds, signs of life every thirty


def wakeups(pid: int) -> int:
    """How often the process has gone to sleep by itself: proc(5), status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))


def is_quiet(master: int) -> bool:
    """Whether it sleeps, once that is done which follows from the start and from the last question."""
    time.sleep(1.0)
    before = wakeups(master)
    time.sleep(QUIET_SECONDS)
    return wakeups(master) - before <= MOST_WAKEUPS


def test_the_master_of_idle_workers_sleeps(make_cluster):
    """With four workers, two plugins, a Unix path, a control socket and a pidfile to look after."""
    plugins = {"plugin:a": {"command": "sleep 1000"}, "plugin:b": {"run": "idle:run", "after": "a"}}
    running = make_cluster(number_workers=4, sections=plugins)
    running.write_module("idle", "def run(plugin): plugin.stopping.wait()")
    running.start()
    for name in plugins:
        running.wait_group(name)
    master = running.master_pid
    assert any(is_quiet(master) for _ in range(3))  # a tick would not let one of them be


def test_what_happens_wakes_it(make_cluster):
    """A death while it sleeps has a successor at once: no tick is waited for."""
    running = make_cluster(number_workers=1).start()
    (victim,) = running.worker_pids()
    time.sleep(1.0)
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: running.log_text().count("Booting worker") == 2, within(5.0))
    wait_until(lambda: running.worker_pids() not in ([], [victim]))
