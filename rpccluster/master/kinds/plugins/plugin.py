"""Plugins as their master sees them: functions and commands, when they are ready, what they write. Runs in the master.

`rpccluster.plugin` is the process itself. A function's process tells the master over its channel when it is ready, and
writes a heartbeat. A command has neither: its exec closes the channel, so the master knows since when it runs, and it
tells the rest as it would tell systemd.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import Any, Callable

from rpccluster.child.assignment import PluginPart
from rpccluster.config.accounts import identity_of
from rpccluster.config.sections.plugin import PluginOptions
from rpccluster.errors import StartError
from rpccluster.ipc.messages import BootFailed, Ready, Switched, Vote, WantsToRetire
from rpccluster.ipc.packets import Passing, close_all
from rpccluster.ipc.scoreboard import CommonCell
from rpccluster.master.children.child import Birth, Child, ChildState, Source
from rpccluster.master.children.group import Group
from rpccluster.master.kinds.kind import Booted, KindEvent, Voted
from rpccluster.master.kinds.plugins.output import PluginOutput
from rpccluster.master.kinds.plugins.sources import Notices, OutputPipe
from rpccluster.master.resources.plugin_listeners import set_blocking
from rpccluster.system import resident_bytes
from rpccluster.system.processes.stuck import where_stuck

__all__ = ["Plugin", "PluginProcess"]

ALIVE_SECONDS = 1.0  # after which a command counts as ready that says nothing
LOOK_SECONDS = 0.4  # between two looks at the memory of a process


class PluginProcess(Child):
    """One process of a plugin, as its master sees it."""

    hears_while_booting = True
    slack_seconds = 0.0
    stop_option = "stop_timeout"
    may_end = True

    def __init__(self, birth: Birth, clock: Callable[[], float]) -> None:
        """``clock`` returns monotonic seconds. Raises OSError, and leaves nothing open then."""
        super().__init__(birth)
        options: PluginOptions = birth.edition.options
        section: Any = birth.edition
        self._clock = clock
        self._siblings: set[PluginProcess] = section.processes
        self._writes: PluginOutput = section.output
        self._says_when_ready = options.ready == "notify"
        self.is_command = bool(options.command)
        self.reads_settings = not self.is_command
        self.called_at: float | None = None  # when the command was executed
        self.looked_at = 0.0
        self.stop_signal = options.stop_signal
        self.reload_signal = options.reload_signal
        if options.ready_timeout:
            self.ready_by = birth.booted_at + options.ready_timeout
        self.output = OutputPipe()
        try:
            self.notices = Notices(_uids(options)) if self.is_command else None
        except OSError:
            self.output.close()
            raise

    # -- what is read of it

    def sources(self) -> Sequence[Source]:
        return [self.channel, self.output, *([self.notices] if self.notices else [])]

    def read(self, source: Source) -> list[tuple[Passing, list[int]]]:
        if source is self.output:
            self._writes.write(self.pid, self.output.read())
            return []
        if source is self.notices:
            return [(Ready([]), []) for notice in self.notices.read() if self._heed(notice)]
        messages = super().read(source)
        self.reads_settings = self.reads_settings and not self.channel.is_closed  # a function may have become a program
        if self.channel.is_closed and self.is_command and self.called_at is None:
            self._note_call(self._clock())
        return messages

    def _note_call(self, now: float) -> None:
        """Note that the command runs, since its exec has closed the channel; or that it has ended, which shows soon."""
        self.called_at = now
        self.excuse(now)
        if not self._says_when_ready:
            self.counts_as_ready_at = now + ALIVE_SECONDS

    def _heed(self, notice: str) -> bool:
        """Heed a notice. Returns whether it says that the command is ready."""
        if notice == "WATCHDOG=1":
            self.row[CommonCell.HEARTBEAT] = int(self._clock() * 1e9)
        return notice == "READY=1" and self._says_when_ready and self.state is ChildState.BOOTING

    def hear_rest(self) -> None:
        self._writes.write(self.pid, self.output.read_rest())

    def let_go(self) -> None:
        self.output.let_go()

    def close(self) -> None:
        super().close()
        self._siblings.discard(self)

    # -- whether it hangs

    @property
    def silent_since(self) -> float:
        """The time of its last sign of life, or of its call.

        Before its call it is bound by ``ready_timeout`` alone, and by ``stop_timeout`` when it was told to end.
        """
        if self.state is ChildState.RETIRING:
            return float("inf")
        was_called = self.called_at is not None if self.is_command else bool(self.row[CommonCell.HEARTBEAT])
        return super().silent_since if was_called else float("inf")

    def question(self) -> int | None:
        return None if self.is_command else super().question()

    def where_it_hangs(self) -> str:
        return where_stuck(self.pid) if self.is_command else super().where_it_hangs()


class Plugin:
    """The kind of plugins; a `rpccluster.master.kinds.kind.Kind`."""

    name = noun = "plugin"

    def __init__(self, clock: Callable[[], float]) -> None:
        """``clock`` returns monotonic seconds."""
        self._clock = clock

    def equip(self, birth: Birth) -> tuple[PluginProcess, PluginPart]:
        section: Any = birth.edition
        has_others = section.processes or (section.cluster.has_old_master and section.own.overlap != "none")
        if not has_others:
            set_blocking(section.listeners)
        child = PluginProcess(birth, self._clock)
        section.processes.add(child)
        listeners = [listener.socket for listener in section.listeners]
        address = child.notices.address if child.notices is not None else ""
        return child, PluginPart(section.name, listeners, section.listener_names(), child.output.far_end, address)

    def hear(self, child: Child, message: Passing, descriptors: list[int], now: float) -> KindEvent | None:
        close_all(descriptors)
        if isinstance(message, Ready):
            return Booted(child)
        if isinstance(message, (Vote, Switched)):
            return Voted(child, message)
        if isinstance(message, BootFailed):
            child.last_words, child.is_service_at_fault = message.text, True
        if isinstance(message, WantsToRetire):
            child.want_recycling(now, message.reason)
        return None

    def arrange(self, group: Group, now: float) -> None:
        """Every slot is like the others."""

    def look(self, group: Group, child: Child, now: float) -> None:
        """Read the memory of a process that is bounded."""
        assert isinstance(child, PluginProcess)
        if group.options.max_memory and now >= child.looked_at + LOOK_SECONDS:
            child.looked_at = now
            child.row[CommonCell.RSS_BYTES] = resident_bytes(child.pid)

    def note_end(self, child: Child) -> KindEvent | None:
        return None

    def forget(self, group: Group) -> None:
        section: Any = group.section
        section.output.close()

    def status(self, child: Child, now: float) -> dict[str, Any]:
        return {"rss_bytes": resident_bytes(child.pid)}


def _uids(options: PluginOptions) -> set[int]:
    """Return who may speak for a process with these options; one of an unknown account fails by itself."""
    uids = {0, os.geteuid()}
    with contextlib.suppress(StartError):
        identity = identity_of(options.user, options.group)
        uids |= {identity.uid} if identity is not None else set()
    return uids
