"""The little master of a `rpccluster.TaskPool`: a program's own pool of task processes, without a cluster.

It is a fresh interpreter, never a fork of the program: ``python -m rpccluster.assembly.little_master FD``. FD is its
end of a SOCK_SEQPACKET pair. The first packet is JSON: the options of a pool, and ``path``, the program's ``sys.path``.
After that both ends are channels: it sends `TaskProcess`, `TaskProcessGone` and `BootFailed`, and takes `KillTask` and
`Retire`. It ends when the program's end is closed, or when the program has ended whose end another process has
inherited; all its processes end with it. It is made of the parts of a cluster's master; the program is the dispatcher.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from rpccluster import system
from rpccluster.assembly.entries import load
from rpccluster.assembly.preload import preload_tasks
from rpccluster.child.life import live
from rpccluster.config.cpus import CPU_NONE
from rpccluster.config.sections.cluster import Options
from rpccluster.config.sections.pool import PoolOptions
from rpccluster.errors import IllegalTransition
from rpccluster.ipc.channel import Channel
from rpccluster.ipc.messages import BootFailed, KillTask, Message, Retire
from rpccluster.live_settings import NO_SETTINGS, Given
from rpccluster.log import LogFiles, set_up_logging
from rpccluster.master.children.actions import Actions
from rpccluster.master.children.group import Group
from rpccluster.master.children.roster import Roster
from rpccluster.master.guard import DESCRIPTORS_KEPT_BACK, Guard
from rpccluster.master.kinds.groups import Died, Groups
from rpccluster.master.kinds.tasks.task import Task
from rpccluster.master.loop import Loop
from rpccluster.master.phases import FIRST, Event, next_phase
from rpccluster.master.resources.warden import Warden
from rpccluster.master.signals import SignalInbox
from rpccluster.system.processes.launch import start_folder

__all__ = ["LittleMaster", "main"]

NAME = "tasks"  # of the only pool, in messages
_PACKET_BYTES = 1 << 20
_RETRY_SECONDS = 0.25
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


@dataclass(eq=False)
class _Section:
    """What its processes are born with."""

    options: PoolOptions
    logs: LogFiles
    name: str = NAME
    generation: int = 1
    settings: Given = NO_SETTINGS
    settings_version: int = NO_SETTINGS.number
    staged: None = None


class LittleMaster:
    """The parts of the little master, and its loop."""

    def __init__(self, channel: Channel, options: PoolOptions, logs: LogFiles) -> None:
        self._channel = channel
        self._system = operating_system = system.System()
        self._warden = Warden(operating_system, Options(proc_name=options.proc_name), logs)
        self._warden.start()  # before there is anything else that it would keep in memory
        preload_tasks()
        self._signals = SignalInbox()
        self._guard = Guard()
        self._loop = Loop(self._guard, waiting=self._signals.waiting)
        self._loop.watch(self._signals, self._signals.drain)
        self._loop.watch(channel, self._hear)
        self._warden.follow(self._loop)
        entry = partial(live, load=partial(load, start_folder()))
        self._roster = roster = Roster(operating_system, self._loop, entry, 1, self._warden.groups)
        self._task = Task(self._tell, roster.say)
        self._phase = next_phase(FIRST, Event.BOOTED)
        group = Group(f"pool:{NAME}", self._task, _Section(options, logs), self._phase)
        group.noun, group.wanted, group.spare = "task process", options.processes, options.spare
        actions = Actions(operating_system, self._roster, system.Reserve(DESCRIPTORS_KEPT_BACK))
        self._groups = Groups(
            operating_system, self._guard, self._roster, actions, {self._task.name: self._task}, [group]
        )
        self._graceful = options.stop_timeout

    def run(self) -> int:
        """Run the pool until the program wants no more of it. Returns the exit code."""
        system.set_title("rpccluster: task master")
        self._system.adopt_orphans()
        self._watch_program()
        waits: float | None = 0.0
        while self._phase.allows.wants_children or any(group.children for group in self._groups.all):
            self._guard.attempt("wait for events", self._loop.turn, waits)
            for turn in (self._collect, self._act, self._warden_turn):
                self._guard.attempt("run the tasks", turn)
            waits = self._seconds()
        self._warden.end()
        return 0

    def _watch_program(self) -> None:
        """Notice the end of the program, though a process that it has forked holds its end of the channel."""
        with contextlib.suppress(AttributeError, OSError):  # PyPy and old kernels have no such descriptor
            program = os.pidfd_open(os.getppid())
            self._loop.watch(program, partial(self._lose_program, program))

    def _lose_program(self, program: int) -> None:
        self._loop.unwatch(program)
        self._note(Event.QUIT)

    def _hear(self) -> None:
        for message, descriptors in self._channel.receive():
            for descriptor in descriptors:
                os.close(descriptor)
            if isinstance(message, KillTask):
                self._task.cancel(self._groups.all, message.serial, message.number)
            elif isinstance(message, Retire):
                self._graceful = message.graceful_seconds
                self._note(Event.STOP)
        if self._channel.is_closed:
            self._loop.unwatch(self._channel)
            self._note(Event.QUIT)

    def _note(self, event: Event) -> None:
        with contextlib.suppress(IllegalTransition):  # it ends already
            self._phase = next_phase(self._phase, event)

    def _collect(self) -> None:
        if any(signum in _ENDING for signum in self._signals.take()):
            self._note(Event.QUIT)
        for event in self._groups.collect():
            if isinstance(event, Died) and event.death.is_failed_boot:
                self._tell(BootFailed("service", event.group.failure))

    def _tell(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        if not self._channel.is_closed:
            self._guard.attempt("tell the program", self._channel.send, message, descriptors)
            self._loop.mind_writing(self._channel)

    def _act(self) -> None:
        self._groups.tell(self._phase, self._graceful)
        self._groups.act()

    def _warden_turn(self) -> None:
        self._warden.turn(self._system.monotonic())

    def _seconds(self) -> float | None:
        if self._guard.take_failure():
            return _RETRY_SECONDS
        wake_at = min(self._groups.wake_at, self._warden.wake_at)
        return None if wake_at == float("inf") else max(0.0, wake_at - self._system.monotonic())


def main(arguments: list[str]) -> int:
    """Take the options from the program, and serve it."""
    sock = socket.socket(fileno=int(arguments[0]))
    system.occupy_standard_descriptors()
    given = json.loads(sock.recv(_PACKET_BYTES))
    sys.path[:] = path = [entry or os.getcwd() for entry in given.pop("path")]
    logs = LogFiles("", "")
    logs.open()
    set_up_logging(logs, "critical")
    targets = tuple(given.pop("targets"))
    options = PoolOptions(targets=targets, pythonpath=tuple(path), log_level="critical", cpu_affinity=CPU_NONE, **given)
    return LittleMaster(Channel(sock), options, logs).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
