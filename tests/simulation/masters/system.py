"""The made-up operating system of one master: its clock, children, signals and log."""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import signal
from collections.abc import Collection, Container, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Callable

from rpccluster.log import LogFiles
from rpccluster.master.upgrade.inherited import Thing
from rpccluster.master.upgrade.starting import CommandLine
from rpccluster.system import Exit, System
from rpccluster.system.processes.process import Work

from ..world.world import World
from .selector import Selector

if TYPE_CHECKING:
    from .master import Master

__all__ = ["Command", "Logs", "MadeUpSystem"]


class StoryOutlet:
    """The master's log: its lines are part of the story."""

    descriptor = 2

    def __init__(self, world: World, writer: str) -> None:
        self._world = world
        self._writer = writer
        self._real_pid = f" of pid {os.getpid()}"

    @property
    def is_waiting(self) -> bool:
        """Whether the disk has no room for what was written."""
        return self._world.now < self._world.scarcity.disk_is_full_until

    def write(self, line: bytes) -> None:
        text = line.decode().rstrip("\n")
        if text.startswith("["):  # the output of a plugin, with time, pid and name
            text = text.split("] ", 3)[-1]
        text = text.replace(self._world.folder, "").replace(self._real_pid, "")
        for part in text.split("\n"):
            self._world.tell(self._writer, part)
        if "Traceback" in text:
            self._world.errors.append(text)

    def flush(self) -> None:
        pass

    def drain(self, seconds: float) -> None:
        pass


class Logs(LogFiles):
    """Logs that go into the story."""

    def __init__(self, world: World, writer: str) -> None:
        made: Any = StoryOutlet(world, writer)
        super().__init__("", "", outlet=made)


@dataclass(frozen=True)
class Command(CommandLine):
    """A command line whose program is a made-up master."""

    begin: Callable[[Sequence[Thing]], object] = print

    def become(self, inherited: Sequence[Thing]) -> None:
        self.begin(inherited)


class MadeUpSystem(System):
    """What one master sees of its operating system."""

    def __init__(self, world: World, master: Master) -> None:
        self._world = world
        self._master = master
        self.newborn = 0  # the pid of the process that is just being forked

    def monotonic(self) -> float:
        return self._world.now

    def sleep(self, seconds: float) -> None:
        self._world.now += seconds

    def selector(self) -> selectors.BaseSelector:
        return Selector(self._world, self._master)

    def set_title(self, title: str) -> None:
        pass

    def getpid(self) -> int:
        return self._master.pid

    def has_terminal(self) -> bool:
        return False

    def fork(self) -> int:
        raise AssertionError("a made-up process cannot be forked")

    def spawn(self, live: Callable[[], object]) -> int:
        if self._world.now < self._world.forks_fail_until:
            self._world.count("fault", "fork failed")
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        self.newborn = self._world.new_pid()
        with self._world.scarcity.lifted():
            live()
        return self.newborn

    def begin_aside(self, work: Work, live: Callable[[Work, int], object]) -> tuple[int, int]:
        """Do the work a little later, unless the process is killed before; the disk may take its time."""
        if self._world.now < self._world.forks_fail_until:
            self._world.count("fault", "fork failed")
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        result, told = os.pipe()
        random = self._world.random
        self._world.after(random.choice((0.0, 0.01, random.random())), _end_aside, work, told, random.random())
        return self._world.new_pid(), result

    def kill(self, pid: int, signum: int) -> None:
        self._world.count("signal to a child", str(signum))
        if signum == signal.SIGKILL:
            self._world.kills.append((self._master, pid))
        self._world.signal(pid, signum)

    def adopt_orphans(self) -> None:
        pass

    def kill_marked(self, marks: Container[str], leave_out: Collection[int]) -> list[int]:
        marked = [each for each in self._descendants() if each.mark in marks and each.parent.pid not in leave_out]
        for each in marked:
            self._doom(each)
        return [each.pid for each in marked]

    def _descendants(self) -> list[Any]:
        """Return the descendants of this master's plugins."""
        found = self._world.of_noun["descendant"].values()
        return [each for each in found if each.plugin.parent is self._master]

    def _doom(self, descendant: Any) -> None:
        descendant.is_doomed = True
        self._world.signal(descendant.pid, signal.SIGKILL)

    def started(self, pid: int) -> int:
        return pid

    def utc(self) -> datetime:
        return datetime.fromtimestamp(self._world.now, timezone.utc)

    def kill_group(self, leader: int, signum: int) -> None:
        self.kill(leader, signum)
        if signum == signal.SIGKILL:
            self._end_group(leader)
        else:
            self._world.stops.append((self._master, leader))

    def _end_group(self, leader: int) -> None:
        for each in self._descendants():
            if each.group == leader:
                self._doom(each)

    def reap(self, leaders: Container[int] = (), let_go: Callable[[int], object] = int) -> list[Exit]:
        self._world.go_on_meanwhile(0.3)
        ended, self._master.zombies = self._master.zombies, []
        for each in ended:
            if each.pid in leaders:
                self._end_group(each.pid)
                let_go(each.pid)
        return ended


def _end_aside(work: Work, told: int, fate: float) -> None:
    """End a process that does work beside a master: killed in one case of ten, before it has done it or after."""
    text = f"{work()}\n" if fate > 0.05 else ""
    with contextlib.suppress(BrokenPipeError):
        os.write(told, b"" if fate < 0.1 else text.encode())
    os.close(told)
