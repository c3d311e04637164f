"""The warden of a master: forked, missed when it ends, forked again, and let go."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator

import pytest

from rpccluster.config import Options
from rpccluster.ipc.group_table import LedGroup
from rpccluster.log import LogFiles
from rpccluster.master.loop import Loop
from rpccluster.master.resources.warden import RETRY_SECONDS, Warden
from rpccluster.system import System
from rpccluster.testing import is_alive, wait_until


class MadeUpSystem(System):
    """A real one whose clock is made up, and which may have no room for another process."""

    def __init__(self) -> None:
        self.now = 100.0
        self.is_full = False
        self.forked: list[int] = []

    def monotonic(self) -> float:
        return self.now

    def spawn(self, live: Callable[[], object]) -> int:
        if self.is_full:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        self.forked.append(super().spawn(live))
        return self.forked[-1]


class Rig:
    """A warden with its loop, and a process that leads a group."""

    def __init__(self) -> None:
        self.system, self.loop = MadeUpSystem(), Loop()
        self.warden = Warden(self.system, Options(service="a:b"), LogFiles("", ""))
        self.led = subprocess.Popen(["sleep", "60"], start_new_session=True)
        self.group = LedGroup(self.led.pid, self.system.started(self.led.pid))

    def end(self) -> None:
        self.warden.end()
        self.led.kill()
        self.led.wait()
        self.loop.close()
        for pid in self.system.forked:
            self.system.wait(pid)


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    made.warden.start()
    made.warden.follow(made.loop)
    yield made
    made.end()


def test_at_its_end_it_kills_what_stands_in_the_table(rig: Rig) -> None:
    """When that returns, nothing of it lives, and the warden neither."""
    warden = rig.warden.pid
    rig.warden.groups.enter(5, rig.group)
    rig.warden.end()
    assert not is_alive(warden)
    assert rig.led.wait(10) == -signal.SIGKILL


def test_what_was_cleared_lives(rig: Rig) -> None:
    """A child that has ended has let go of its number."""
    rig.warden.groups.enter(5, rig.group)
    rig.warden.groups.clear(5)
    rig.warden.end()
    assert rig.led.poll() is None


def test_a_stranger_lives(rig: Rig) -> None:
    """It was started at another time than the child that had the number."""
    rig.warden.groups.enter(5, LedGroup(rig.group.leader, rig.group.started - 1))
    rig.warden.end()
    assert rig.led.poll() is None


def test_a_killed_one_is_started_again(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """At once, unless it was only just started; the log says so."""
    killed, rig.system.now = rig.warden.pid, 105.0
    os.kill(killed, signal.SIGKILL)
    rig.loop.turn(10)
    assert (rig.warden.pid, rig.warden.wake_at) == (0, 105.0)
    rig.warden.turn(105.0)
    assert rig.warden.pid not in (0, killed)
    assert rig.warden.wake_at == float("inf")
    assert f"The warden (pid: {killed}) has ended" in caplog.text
    os.kill(rig.warden.pid, signal.SIGKILL)
    rig.loop.turn(10)
    assert (rig.warden.pid, rig.warden.wake_at) == (0, 105.0 + RETRY_SECONDS)


def test_without_room_for_it_it_is_tried_again(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """The cluster serves meanwhile."""
    rig.system.is_full = True
    os.kill(rig.warden.pid, signal.SIGKILL)
    rig.loop.turn(10)
    rig.system.now = 101.0
    rig.warden.turn(101.0)
    assert (rig.warden.pid, rig.warden.wake_at) == (0, 101.0 + RETRY_SECONDS)
    assert "Cannot start the warden" in caplog.text
    rig.system.is_full = False
    rig.warden.turn(101.5)
    assert rig.warden.pid == 0
    rig.warden.turn(101.0 + RETRY_SECONDS)
    assert rig.warden.pid


def test_signals_do_not_end_it(rig: Rig) -> None:
    """They are meant for the master."""
    wait_until(lambda: os.getsid(rig.warden.pid) == rig.warden.pid, 10)
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1):
        wait_until(lambda signum=signum: _ignores(rig.warden.pid, signum), 10)  # type: ignore[misc]


def _ignores(pid: int, signum: int) -> bool:
    with open(f"/proc/{pid}/status") as status:
        (line,) = [line for line in status if line.startswith("SigIgn:")]
    return bool(int(line.split()[1], 16) & 1 << (signum - 1))
