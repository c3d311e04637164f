"""The master's parts, and those that it shares with its workers, as the shared test handles them."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from master.changes.test_reload import Reloadable
from master.made_up import cluster

from rpccluster.address import UnixAddress, parse_address
from rpccluster.config import Options, Sources, load
from rpccluster.ipc.channel import Channel, channel_pair
from rpccluster.ipc.messages import Accept, Give
from rpccluster.log.files import LogFiles
from rpccluster.master.changes.saving import Saving
from rpccluster.master.control.server import ControlServer
from rpccluster.master.handover.broker import Broker
from rpccluster.master.loop import Loop
from rpccluster.master.resources.daemonize import StartReport
from rpccluster.master.resources.listeners import (
    Listener,
    close_listeners,
    open_control_listener,
    open_listeners,
)
from rpccluster.master.resources.ownership import Ownership
from rpccluster.master.resources.pidfile import Pidfile
from rpccluster.master.resources.warden import Warden
from rpccluster.master.upgrade.new_master import NewMaster
from rpccluster.master.upgrade.old_master import OldMaster
from rpccluster.master.upgrade.starting import CommandLine, Started, start
from rpccluster.master.watching.config_watch import ConfigWatch
from rpccluster.system import Reserve, System
from rpccluster.system.files import FileWatch

from .part import Part

__all__ = ["MASTER_PARTS"]

Failures = Mapping[str, Callable[[], AbstractContextManager[object]]]


class AChannel(Part):
    """With messages and descriptors that nobody has read, and others that have found no room."""

    one: Channel | None = None
    other: Channel | None = None

    def start(self) -> None:
        self.one, self.other = channel_pair()
        with open(os.devnull) as null:
            while not self.one.has_unsent:
                self.one.send(Give(1, [], False, bytes(2000), b"", []), [null.fileno()])
            self.one.send(Give(1, [], False, bytes(2000), b"", []), [null.fileno()])

    def stop(self) -> None:
        for end in (self.one, self.other):
            if end is not None:
                end.close()

    def is_stopped(self) -> bool:
        return self.one is None or (self.one.is_closed and self.one.fileno() == -1 and not self.one.has_unsent)


class AReserve(Part):
    reserve: Reserve | None = None

    def start(self) -> None:
        self.reserve = Reserve(3)
        with self.reserve.lent():
            pass

    def stop(self) -> None:
        if self.reserve is not None:
            self.reserve.close()


class ALoop(Part):
    """Which watches something that outlives it."""

    loop: Loop | None = None

    def prepare(self) -> None:
        self.pair = socket.socketpair()

    def start(self) -> None:
        self.loop = Loop()
        self.loop.watch(self.pair[0], lambda: None)
        self.loop.turn(0)

    def stop(self) -> None:
        if self.loop is not None:
            self.loop.unwatch(self.pair[0])
            self.loop.close()

    def clean(self) -> None:
        for end in self.pair:
            end.close()


class ALogFile(Part):
    """A log, and an access log beside it."""

    def make(self) -> None:
        self.files = LogFiles(str(self.folder / "a.log"), str(self.folder / "access.log"))

    def start(self) -> None:
        self.files.open()
        self.files.reopen()

    def stop(self) -> None:
        self.files.close()

    def failures(self) -> Failures:
        return {
            "its path is a folder's": lambda: in_the_way(self.folder / "a.log"),
            "the access log's path is a folder's": lambda: in_the_way(self.folder / "access.log"),
        }


class AFileWatch(Part):
    """Which follows a file that goes."""

    watch: FileWatch | None = None

    def start(self) -> None:
        file = self.folder / "followed"
        file.touch()
        self.watch = FileWatch()
        is_followed = self.watch.follow([str(file)])
        file.unlink()
        if not is_followed:
            raise OSError("it cannot be followed")
        self.watch.drain()

    def stop(self) -> None:
        if self.watch is not None:
            self.watch.close()

    def is_stopped(self) -> bool:
        return self.watch is None or not self.watch.is_open


class AConfigWatch(Part):
    """Which follows a file that changes."""

    def prepare(self) -> None:
        self.file = self.folder / "a.ini"
        self.file.write_text("[cluster]\nservice = a:b\nreload_on_change = true\n")
        self.loop = Loop()
        self.cluster = cluster()
        self.cluster.configuration = load(Sources(str(self.file)))

    def make(self) -> None:
        self.watch = ConfigWatch(self.cluster, self.loop)

    def start(self) -> None:
        self.watch.turn(1.0, may_reload=True)
        self.file.write_text(self.file.read_text() + "# changed\n")
        self.loop.turn(0)
        if self.watch.turn(2.0, may_reload=True) or not self.watch.is_told:
            raise OSError("the folder cannot be watched")

    def stop(self) -> None:
        self.watch.close()

    def is_stopped(self) -> bool:
        return self.watch.wake_at in (0.0, float("inf"))


class APidfile(Part):
    pidfile: Pidfile | None = None

    @property
    def path(self) -> Path:
        return self.folder / "cluster.pid"

    def start(self) -> None:
        self.pidfile = Pidfile.acquire(str(self.path))
        self.pidfile.write(os.getpid())

    def stop(self) -> None:
        if self.pidfile is not None:
            self.pidfile.clear()
            self.pidfile.close()

    def failures(self) -> Failures:
        return {
            "its path is a folder's": lambda: in_the_way(self.path),
            "another master holds its lock": self.is_locked,
        }

    @contextlib.contextmanager
    def is_locked(self) -> Iterator[None]:
        other = Pidfile.acquire(str(self.path))
        other.write(os.getpid())
        yield
        other.clear()
        other.close()


class Listeners(Part):
    """At a port and at a Unix path."""

    listeners: list[Listener]

    def prepare(self) -> None:
        self.listeners = []
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.port = server.getsockname()[1]

    def start(self) -> None:
        bind = (parse_address(f"tcp://127.0.0.1:{self.port}"), UnixAddress(str(self.folder / "a.sock")))
        self.listeners = open_listeners(Options(service="a:b", bind=bind), None, [])

    def stop(self) -> None:
        close_listeners(self.listeners, is_last=True)

    def failures(self) -> Failures:
        return {
            "its port is taken": lambda: socket.create_server(("127.0.0.1", self.port)),
            "its path is a folder's": lambda: in_the_way(self.folder / "a.sock"),
        }


class AControlServer(Part):
    """With clients that have asked nothing."""

    server: ControlServer | None = None

    def prepare(self) -> None:
        self.loop = Loop()
        self.clients: list[socket.socket] = []

    @property
    def path(self) -> Path:
        return self.folder / "control.sock"

    def make(self) -> None:
        self.server = ControlServer(self.loop, open_control_listener(str(self.path)))

    def start(self) -> None:
        assert self.server is not None
        self.server.serve({"nothing": lambda params, answer: None})
        for _ in range(3):
            self.clients.append(socket.socket(socket.AF_UNIX))
            self.clients[-1].connect(str(self.path))
        self.loop.turn(0)

    def stop(self) -> None:
        while self.clients:
            self.clients.pop().close()
        if self.server is not None:
            self.server.stop_listening(is_last=True)
            self.server.close()

    def is_stopped(self) -> bool:
        return self.server is None or not self.server.clients

    def clean(self) -> None:
        self.loop.close()

    def failures(self) -> Failures:
        return {"its path is a folder's": lambda: in_the_way(self.path)}


class AllThatAMasterOwns(Part):
    """Pidfile, control socket and listeners, given back together."""

    ownership: Ownership | None = None

    def prepare(self) -> None:
        self.loop = Loop()

    def make(self) -> None:
        with contextlib.ExitStack() as opened:
            pidfile = Pidfile.acquire(str(self.folder / "cluster.pid"))
            opened.callback(pidfile.close)
            control = open_control_listener(str(self.folder / "control.sock"))
            opened.callback(control.close, is_last=True)
            options = Options(service="a:b", bind=(UnixAddress(str(self.folder / "a.sock")),))
            listeners = open_listeners(options, None, [])
            self.ownership = Ownership(pidfile, ControlServer(self.loop, control), listeners)
            opened.pop_all()

    def start(self) -> None:
        assert self.ownership is not None
        self.ownership.sign(os.getpid())
        self.ownership.take_over(os.getpid())

    def stop(self) -> None:
        if self.ownership is not None:
            self.ownership.give_back()

    def clean(self) -> None:
        self.loop.close()


class AStartReport(Part):
    report: StartReport | None = None

    def start(self) -> None:
        read_end, write_end = os.pipe()
        os.close(read_end)
        self.report = StartReport(write_end)

    def stop(self) -> None:
        if self.report is not None:
            self.report.send(0)
            self.report.close()

    def is_stopped(self) -> bool:
        return self.report is None or not self.report.is_awaited


class ABroker(Part):
    """With a connection in transit that nobody can adopt."""

    broker: Broker | None = None

    def prepare(self) -> None:
        self.loop = Loop()

    def start(self) -> None:
        self.broker = Broker(self.loop, list)
        give: Any = Give(1, [], False, b"", b"", [])
        self.broker.hear_old_master(None, give, [os.open(os.devnull, os.O_RDONLY)], 0.0)  # type: ignore[arg-type]
        self.broker.turn(0.0, may_move=True)

    def stop(self) -> None:
        if self.broker is not None:
            self.broker.close()

    def is_stopped(self) -> bool:
        return self.broker is None or not self.broker.in_transit

    def clean(self) -> None:
        self.loop.close()


class AReload(Part):
    """Which has opened all that its new configuration names, and waits for its first worker."""

    def prepare(self) -> None:
        self.reloadable = Reloadable(self.folder)
        self.reloading = self.reloadable.reloading
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.port = server.getsockname()[1]

    def start(self) -> None:
        bind = f"tcp://127.0.0.1:{self.port}, unix://{self.folder}/new.sock"
        self.reloadable.stage(bind=bind, log_file=self.folder / "new.log", access_log=self.folder / "new.access")
        if not self.reloading.is_staged:
            raise OSError(self.reloading.outcome)

    def stop(self) -> None:
        self.reloading.give_up("it is stopped")

    def is_stopped(self) -> bool:
        return not self.reloading.is_staged

    def clean(self) -> None:
        close_listeners(self.reloadable.cluster.listeners, is_last=True)
        self.reloadable.cluster.logs.close()

    def failures(self) -> Failures:
        return {
            "its port is taken": lambda: socket.create_server(("127.0.0.1", self.port)),
            "its path is a folder's": lambda: in_the_way(self.folder / "new.sock"),
            "its log's path is a folder's": lambda: in_the_way(self.folder / "new.log"),
            "its access log's path is a folder's": lambda: in_the_way(self.folder / "new.access"),
        }


class AnUpgrade(Part):
    """The old master's side: a new master that boots for ever is given up."""

    takes_time = True

    def prepare(self) -> None:
        self.loop = Loop()
        self.executable = self.folder / "master"
        self.executable.write_text("#!/bin/sh\nexec sleep 60\n")
        self.executable.chmod(0o755)
        self.pids: list[int] = []

    def make(self) -> None:
        command = CommandLine([], str(self.folder), str(self.executable))
        self.upgrade = NewMaster(System(), self.loop, lambda: self.noted(start(System(), command, [])), print)

    def noted(self, started: Started | None) -> Started | None:
        self.pids += [started.pid] if started else []
        return started

    def start(self) -> None:
        self.upgrade.begin()
        if not self.upgrade.is_under_way:
            raise OSError(self.upgrade.failure)

    def stop(self) -> None:
        self.upgrade.give_up("it is stopped")
        while self.pids:
            os.waitpid(self.pids.pop(), 0)  # in a master the roster reaps it

    def is_stopped(self) -> bool:
        return not self.upgrade.is_under_way

    def clean(self) -> None:
        self.loop.close()

    def failures(self) -> Failures:
        return {"its program is not there": lambda: moved_away(self.executable)}


class AnOldMaster(Part):
    """The new master's side: the channel to the old one, which ends."""

    old_master: OldMaster | None = None

    def prepare(self) -> None:
        self.loop = Loop()
        self.theirs: Channel | None = None

    def start(self) -> None:
        ours, self.theirs = channel_pair()
        self.old_master = OldMaster(self.loop, ours, 2, lambda event: None)
        self.old_master.say_serving(os.getpid())
        self.theirs.send(Accept())

    def stop(self) -> None:
        if self.theirs is not None:
            self.theirs.close()
            self.loop.turn(0)

    def clean(self) -> None:
        self.loop.close()


@contextlib.contextmanager
def in_the_way(path: Path) -> Iterator[None]:
    """A folder has that name."""
    path.mkdir()
    yield
    path.rmdir()


@contextlib.contextmanager
def moved_away(path: Path) -> Iterator[None]:
    path.rename(path.with_suffix(".away"))
    yield
    path.with_suffix(".away").rename(path)


class FullSystem(System):
    """A system that may have no room for another process."""

    is_full = False

    def spawn(self, live: Callable[[], object]) -> int:
        if self.is_full:
            raise BlockingIOError
        return super().spawn(live)


class AWarden(Part):
    """With a loop that would notice its end."""

    warden: Warden | None = None

    def prepare(self) -> None:
        self.system, self.loop, self.is_followed = FullSystem(), Loop(), False
        self.pids: list[int] = []

    def make(self) -> None:
        self.warden = Warden(self.system, Options(service="a:b"), LogFiles("", ""))

    def start(self) -> None:
        assert self.warden is not None
        assert not self.warden.pid
        self.warden.start()
        if not self.is_followed:
            self.warden.follow(self.loop)
            self.is_followed = True
        assert self.warden.pid  # else it is tried again later
        self.pids.append(self.warden.pid)

    def stop(self) -> None:
        if self.warden is not None:
            self.warden.end()
        while self.pids:
            self.system.wait(self.pids.pop())

    def clean(self) -> None:
        self.loop.close()

    def failures(self) -> Failures:
        return {"no process can be made": self.no_room}

    @contextlib.contextmanager
    def no_room(self) -> Iterator[None]:
        self.system.is_full = True
        yield
        self.system.is_full = False


class AWrite(Part):
    """By a process that tells its outcome when nobody may wait for it any more."""

    saving: Saving | None = None

    def prepare(self) -> None:
        self.system, self.loop = FullSystem(), Loop()
        self.pids: list[int] = []

    def make(self) -> None:
        self.saving = Saving(self.system, self.loop)

    def start(self) -> None:
        assert self.saving is not None
        self.saving.begin(lambda: "")
        if not self.saving.is_under_way:
            raise OSError(self.saving.failure)
        self.pids.append(self.saving.pid)

    def stop(self) -> None:
        if self.saving is not None:
            self.saving.close()
        while self.pids:
            self.system.wait(self.pids.pop())

    def is_stopped(self) -> bool:
        return self.saving is None or not self.saving.is_under_way

    def clean(self) -> None:
        self.loop.close()

    def failures(self) -> Failures:
        return {"no process can be made": self.no_room}

    @contextlib.contextmanager
    def no_room(self) -> Iterator[None]:
        self.system.is_full = True
        yield
        self.system.is_full = False


MASTER_PARTS: list[type[Part]] = [
    AChannel,
    AReserve,
    ALoop,
    ALogFile,
    AFileWatch,
    AConfigWatch,
    APidfile,
    Listeners,
    AControlServer,
    AllThatAMasterOwns,
    AStartReport,
    ABroker,
    AReload,
    AnUpgrade,
    AnOldMaster,
    AWarden,
    AWrite,
]
