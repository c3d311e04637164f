"""The made-up operating system of one master: its clock, children, signals, selector and log."""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import signal
import socket
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Callable

from rpccluster.log import LogFiles
from rpccluster.master.upgrade.inherited import Thing
from rpccluster.master.upgrade.starting import CommandLine
from rpccluster.system import Exit, System
from rpccluster.system.files import FileWatch
from rpccluster.system.processes.process import Work

from .world import Process, World

if TYPE_CHECKING:
    from .master import Master

__all__ = ["Command", "Inbox", "Logs", "MadeUpSystem", "Selector", "Watch"]


class Selector(selectors.BaseSelector):
    """Never waits: the world has waited already. What is ready comes in an order that the seed chooses."""

    def __init__(self, world: World, process: Process) -> None:
        self._world = world
        self._process = process
        self._keys: dict[int, selectors.SelectorKey] = {}  # by descriptor, in the order in which they came

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        number = self._number(fileobj)
        if number in self._keys:
            raise KeyError(f"{fileobj!r} is already registered")
        return self._set(number, fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        key = self._keys.pop(self._number(fileobj))
        self._world.unwatch(key.fd)
        return key

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._set(self._keys[self._number(fileobj)].fd, fileobj, events, data)

    def _set(self, number: int, fileobj: Any, events: int, data: Any) -> selectors.SelectorKey:
        self._keys[number] = key = selectors.SelectorKey(fileobj, number, events, data)
        self._world.watch(number, self._process, _poll_events(events))
        return key

    def _number(self, fileobj: Any) -> int:
        """Return the descriptor of ``fileobj``; of a closed one, that under which it is registered."""
        number: int = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        if number >= 0:
            return number
        for key in self._keys.values():
            if key.fileobj is fileobj:
                return key.fd
        raise ValueError(f"{fileobj!r} is closed")

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys[self._number(fileobj)]

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        come = self._world.come
        found = [(key, _selected(come[number]) & key.events) for number, key in self._keys.items() if number in come]
        found = [entry for entry in found if entry[1]]
        if len(found) > 1:
            self._world.random.shuffle(found)
        self._world.go_on_meanwhile(0.1)  # what comes now is seen in the next turn
        return found

    def close(self) -> None:
        for number in self._keys:
            self._world.unwatch(number)
        self._keys.clear()


def _poll_events(events: int) -> int:
    return (1 if events & selectors.EVENT_READ else 0) | (4 if events & selectors.EVENT_WRITE else 0)


def _selected(come: int) -> int:
    return (selectors.EVENT_READ if come & ~4 else 0) | (selectors.EVENT_WRITE if come & ~1 else 0)


_NOTHING = contextlib.nullcontext()


class Inbox:
    """The signals of a made-up master; a socket turns readable with each."""

    def __init__(self) -> None:
        self._numbers: list[int] = []
        self._read_end, self._write_end = socket.socketpair()
        for end in (self._read_end, self._write_end):
            end.setblocking(False)

    def note(self, signum: int) -> None:
        if signum not in self._numbers:
            self._numbers.append(signum)
        with contextlib.suppress(BlockingIOError):
            self._write_end.send(b"s")

    @property
    def has_any(self) -> bool:
        """Whether a signal was not taken yet."""
        return bool(self._numbers)

    def waiting(self) -> AbstractContextManager[None]:
        return _NOTHING

    def fileno(self) -> int:
        return self._read_end.fileno()

    def drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._read_end.recv(512):
                pass

    def take(self) -> list[int]:
        numbers, self._numbers = self._numbers, []
        return numbers

    def close(self) -> None:
        self._read_end.close()
        self._write_end.close()


class Watch(FileWatch):
    """A watch of files that the world tells of changes: closing a real one takes the kernel long."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._changes, self._told = socket.socketpair()
        self._descriptor = self._changes.fileno()
        self._changes.setblocking(False)
        world.watches.append(self)

    def tell(self) -> None:
        """A file has changed."""
        if self.is_open:
            self._told.send(b"c")

    def follow(self, paths: Iterable[str]) -> bool:
        return not self._world.removed or all(os.path.exists(path) for path in paths)

    def close(self) -> None:
        self._descriptor = -1
        self._changes.close()
        self._told.close()


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
