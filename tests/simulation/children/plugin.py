"""A made-up process of a plugin: a function or a command, by the real messages, and what it leaves behind.

It boots slowly or not at all, says that it is ready, late, or never; it beats or hangs, ends by itself, well or badly,
and obeys the stop signal or not. It may fork a descendant, which leaves its process group or stays in it, and which
nothing but the master ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from random import Random
from typing import TYPE_CHECKING, Any

from rpccluster.ipc.messages import BootFailed, Ready
from rpccluster.ipc.scoreboard import CommonCell
from rpccluster.system import MSG_NOSIGNAL

from ..world.process import NEVER, Process
from ..world.world import World
from .wire import copy_of

if TYPE_CHECKING:
    from ..masters.master import Master

__all__ = ["Descendant", "Plugin"]

ALIVE_SECONDS = 1.0  # after which a command counts as ready that says nothing


class Plugin(Process):
    """One process of a plugin. Moments are infinite if they never come."""

    noun = "plugin"

    def __init__(self, world: World, pid: int, master: Master, assignment: Any) -> None:
        super().__init__(world, pid, master)
        self.plugin, self.slot, self.row = assignment.part.name, assignment.slot, assignment.row
        self.options, self.generation, self.mark = assignment.options, assignment.generation, assignment.mark
        self.stopped = master.parts.groups.named(f"plugin:{self.plugin}").stopped  # why it was, at this birth
        groups = master.parts.groups.all
        self.wanted = {each.name: each.wanted if each.phase.allows.wants_children else 0 for each in groups}  # then
        self.is_command = bool(self.options.command)
        self.channel = copy_of(assignment.channel)
        self._output = os.dup(assignment.part.output)
        self._notify = assignment.part.notify
        world.watch(self.channel.fileno(), self)
        world.number_births += 1
        number = world.number_births
        chance = world.plan.chance(f"plugin {number}")
        self.called_at = world.now + world.plan.boot_seconds(chance, 0.01, 1.0)
        self.is_called = self.is_ready = self.is_stopping = self.has_exec = False
        self.ready_at = self.called_at + (0.0 if self.options.ready == "started" else chance.random())
        self.ends_at = self.called_at + 40.0 * chance.random() if chance.random() < 0.3 else NEVER
        self.code = chance.choice((0, 0, 1))
        self.stop_seconds = chance.choice((0.0, 0.0, 0.5))
        self.hangs_from = NEVER
        self.ended_at = 0.0
        self.commands = 0  # how many there were in this world when it ended
        self.is_deaf = self.cannot_boot = self.forks = False
        self._leaves_group = chance.random() < 0.5
        if number not in world.plan.spared and not world.is_calm:
            self._draw_fate(world.plan.chance(f"fate {number}"))
        world.tell(self.name, f"is born as {self.plugin} {self.slot}, generation {self.generation}")

    def _draw_fate(self, chance: Random) -> None:
        fate = chance.random()
        if fate < 0.10:
            self.cannot_boot = True
        elif fate < 0.16:
            self.called_at += 60.0 * chance.random()
        elif fate < 0.22:
            self.ready_at = NEVER if self.options.ready == "notify" else self.ready_at
        elif fate < 0.32:
            self.is_deaf = True
        elif fate < 0.40:
            self.hangs_from = self.called_at + 10.0 * chance.random()
        elif fate < 0.55:
            self.ends_at, self.code = self.called_at + 4.0 * chance.random(), 1
        self.forks = chance.random() < 0.25

    @property
    def wake_at(self) -> float:
        if not self.is_called:
            return self.called_at
        return min(self.ends_at, NEVER if self.is_ready else self.ready_at)

    def beat(self) -> None:
        """Write the heartbeat that it would have written by now; a command tells it as systemd would hear it."""
        now = self.world.now
        if self.is_called and not self.is_command and now < self.hangs_from:
            self.row[CommonCell.HEARTBEAT] = int((now - now % 0.5) * 1e9)

    # -- one step

    def step(self) -> None:
        if not self.has_exec:
            self.channel.receive()
            if self.channel.is_closed:
                self.end(code=1)
                return
        now = self.world.now
        if not self.is_called:
            if now >= self.called_at:
                self._be_called()
            return
        if not self.is_ready and now >= self.ready_at:
            self._tell_ready()
        if now >= self.ends_at:
            self.end(code=0 if self.is_stopping else self.code)

    def _be_called(self) -> None:
        if self.cannot_boot:
            if not self.is_command:
                self.channel.send(BootFailed("service", "the plugin is at fault"))
            self.end(code=3)
            return
        self.is_called = True
        self._write(f"{self.plugin} begins\n")
        self.beat()
        if self.is_command:
            self._close_channel()
            if self.options.ready == "started":
                self.ready_at = NEVER  # it says nothing
        if self.forks:
            self._fork()

    def _tell_ready(self) -> None:
        self.is_ready = True
        self.world.count("plugin", "ready")
        if not self.is_command:
            self.channel.send(Ready([]))
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notice, contextlib.suppress(OSError):
            notice.sendto(b"READY=1", MSG_NOSIGNAL, "\0" + self._notify[1:])

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            os.write(self._output, text.encode())

    def _fork(self) -> None:
        child = Descendant(self.world, self.world.new_pid(), self, leaves_group=self._leaves_group)
        self.world.add(child)
        where = "outside of its process group" if self._leaves_group else "in its process group"
        self.world.tell(self.name, f"forks {child.name} {where}")

    # -- what happens to it

    @property
    def is_up(self) -> bool:
        """Whether those that come after it may start, as far as it is concerned."""
        if self.is_command and self.options.ready == "started":
            return self.is_called and self.world.now >= self.called_at + ALIVE_SECONDS
        return self.is_ready

    def take_signal(self, signum: int) -> None:
        if signum == signal.SIGCHLD:
            self.zombies.clear()
        elif signum == self.options.stop_signal and not self.is_stopping:
            self.world.tell(self.name, "is told to stop" + (", and is deaf" if self.is_deaf else ""))
            self.world.count("plugin", "stop signal")
            if not self.is_deaf and self.is_called:
                self.is_stopping, self.ends_at = True, self.world.now + self.stop_seconds
            elif not self.is_called and not self.is_deaf:
                self.world.after(0.0, self.end, signum=signum)

    def end(self, *, code: int | None = None, signum: int | None = None) -> None:
        if self.is_alive:
            self.ended_at, self.commands = self.world.now, self.world.commands
            if self.world.has_open_commands:  # one of them may ask for it
                self.commands = -1
            master: Any = self.parent
            if code is not None and not self.is_stopping and not self._others() and not self._is_asked(master):
                self.code = code
                master.ended[self.plugin, self.slot] = self
        super().end(code=code, signum=signum)

    def _is_asked(self, master: Any) -> bool:
        children = (child for group in master.parts.groups.all for child in group.children)
        return any(child.pid == self.pid and child.is_expected_to_end for child in children)

    def _others(self) -> list[Plugin]:
        """Return the other processes of this slot."""
        own = (self.plugin, self.slot, self.parent)
        plugins = self.world.of_noun[self.noun].values()
        return [
            each
            for each in plugins
            if each is not self and not each.is_stopping and (each.plugin, each.slot, each.parent) == own
        ]

    def _close_channel(self) -> None:
        self.has_exec = True
        self.world.unwatch(self.channel.fileno())
        self.channel.close()

    def release(self) -> None:
        if not self.has_exec:
            self._close_channel()
        os.close(self._output)


class Descendant(Process):
    """A process that a plugin has forked; nothing but a kill ends it. It keeps no descriptor."""

    noun = "descendant"

    def __init__(self, world: World, pid: int, plugin: Plugin, *, leaves_group: bool) -> None:
        super().__init__(world, pid, plugin)
        self.group = pid if leaves_group else plugin.pid
        self.mark = plugin.mark
        self.plugin = plugin
        self.is_doomed = False  # a kill is on its way

    def lose_parent(self) -> None:
        """Fall to the master, or to the warden, which kills it, if the master has ended."""
        master = self.plugin.parent
        if master is not None and master.is_alive:
            self.parent = master
            master.children[self.pid] = self
        else:
            self.is_doomed = True
            super().lose_parent()

    def take_signal(self, signum: int) -> None:
        """Ignore it."""
