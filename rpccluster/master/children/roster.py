"""Starts children, receives their messages, reaps them. Runs in the master.

Owns the scoreboard, the table of process groups, and the master's ends of the channels as long as a child lives.
Decides nothing: `rpccluster.master.children.policy` does. Knows no kind: a child's kind makes its own part, and its
messages are passed on unread.
"""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

from rpccluster import system
from rpccluster.child.assignment import Assignment, ChildEntry, KindPart
from rpccluster.ipc.channel import Channel, channel_pair
from rpccluster.ipc.group_table import GroupTable, LedGroup
from rpccluster.ipc.messages import Message
from rpccluster.ipc.packets import Passing
from rpccluster.ipc.scoreboard import MOST_ROWS, CommonCell, RowState, Scoreboard
from rpccluster.log import logger
from rpccluster.master.children.child import Birth, Child, Edition, Source
from rpccluster.master.children.group import Group
from rpccluster.master.children.remains import Remains
from rpccluster.master.loop import Loop

__all__ = ["Roster", "Said"]


class Said(NamedTuple):
    """A child has sent ``message``; the receiver owns the descriptors from now on."""

    group: Group
    child: Child
    message: Passing
    descriptors: list[int]


class Roster:
    """All started children that are not reaped yet."""

    def __init__(
        self,
        operating_system: system.System,
        loop: Loop,
        entry: ChildEntry,
        first_serial: int,
        groups: GroupTable | None = None,
    ) -> None:
        """``entry`` makes a newly forked process a child; a warden reads ``groups``."""
        self._system = operating_system
        self._loop = loop
        self._entry = entry
        self._serial = first_serial - 1
        self._scoreboard = Scoreboard(MOST_ROWS)
        self._groups = groups or GroupTable()
        self._remains = Remains(operating_system)
        self._children: dict[Child, Group] = {}
        self._said: deque[Said] = deque()

    @property
    def next_serial(self) -> int:
        """The next free serial: no child has had it or a higher one."""
        return self._serial + 1

    # -- starting

    def spawn(self, group: Group, slot: int, edition: Edition, cpus: list[int] | None) -> Child | None:
        """Start a child, pinned to ``cpus``. Returns None, and logs why, if there is no room for it."""
        row_number = self._scoreboard.take_row()
        if row_number is None:
            told = "Cannot start another %s: all %d rows of the scoreboard are in use"
            logger.error(told, group.noun, MOST_ROWS)
            return None
        self._serial += 1
        ends: list[Channel] = []
        child: Child | None = None
        try:
            ends += channel_pair()
            child, part = group.kind.equip(self._birth(slot, edition, row_number, ends[0], cpus))
            assignment = self._assignment(group, child, ends[1], cpus, part)
            child.pid = self._system.spawn(partial(self._entry, assignment))
            child.mark = assignment.mark
        except (OSError, MemoryError) as error:
            logger.error("Cannot start a %s for slot %d: %s", group.noun, slot, error)
            self._give_up(row_number, child, ends)
            return None
        ends[1].close()
        child.let_go()
        return child if self._enrol(group, child) else None

    def _birth(self, slot: int, edition: Edition, row_number: int, channel: Channel, cpus: list[int] | None) -> Birth:
        row = self._scoreboard.row(row_number)
        row[CommonCell.STATE] = RowState.BOOTING
        shown = cpus or sorted(system.allowed_cpus())
        return Birth(slot, self._serial, edition, row_number, row, channel, shown, self._system.monotonic())

    def _assignment(
        self, group: Group, child: Child, channel: Channel, cpus: list[int] | None, part: KindPart
    ) -> Assignment[KindPart]:
        return Assignment(
            kind=group.kind.name,
            name=group.title_of(child.slot),
            slot=child.slot,
            generation=child.generation,
            options=child.edition.options,
            cpus=cpus,
            row_number=child.row_number,
            scoreboard=self._scoreboard,
            serial=child.serial,
            channel=channel,
            master_pid=self._system.getpid(),
            logs=child.edition.logs,
            part=part,
            mark=self._groups.mark(child.serial) if part.is_marked else "",
            settings=child.edition.settings,
        )

    def _enrol(self, group: Group, child: Child) -> bool:
        """Watch a newly forked child, or kill it if that is not possible."""
        self._groups.enter(child.row_number, LedGroup(child.pid, self._system.started(child.pid)))
        try:
            for source in child.sources():
                self._loop.watch(source, lambda source=source: self._hear(child, source))  # type: ignore[misc]
        except (OSError, MemoryError) as error:  # epoll_ctl(2) has limits of its own
            logger.error("Cannot watch the %s (pid: %d, slot: %d): %s", group.noun, child.pid, child.slot, error)
            self._system.kill_group(child.pid, signal.SIGKILL)
            self._give_up(child.row_number, child, [])
            return False
        self._children[child] = group
        group.children.append(child)
        logger.info("Booting %s with pid: %d", group.noun, child.pid)
        return True

    def _give_up(self, row_number: int, child: Child | None, ends: list[Channel]) -> None:
        self._scoreboard.free_row(row_number)
        self._groups.clear(row_number)
        for source in child.sources() if child else ():
            self._loop.unwatch(source)
        if child is not None:
            child.close()
        for end in ends:
            end.close()

    # -- talking

    def _hear(self, child: Child, source: Source) -> None:
        """Read ``source``, and keep its messages for `take_said`."""
        group = self._children[child]
        self._said.extend(Said(group, child, message, descriptors) for message, descriptors in child.read(source))
        if source.is_closed:
            self._loop.unwatch(source)

    def take_said(self) -> Iterator[Said]:
        """Yield the messages of children since the last call, in order."""
        while self._said:
            yield self._said.popleft()

    def say(self, child: Child, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send ``message`` to a child; an ended one is no error. A lack of descriptors is logged."""
        if not child.channel.is_closed:
            self._loop.guard.attempt("tell a child something", child.channel.send, message, descriptors)
            self._loop.mind_writing(child.channel)

    def signal(self, child: Child, signum: int) -> None:
        """Send a signal to a child, whose pid is its own until it is reaped."""
        self._system.kill(child.pid, signum)

    def tell_of_settings(self) -> None:
        """Send each ready child its ``reload_signal``, if it has one."""
        for child in self._children:
            if child.reload_signal is not None and child.is_ready:
                self.signal(child, child.reload_signal)

    def stop(self, child: Child) -> None:
        """Make a child retire that has no farewell."""
        child.stop(self._system)

    def kill(self, child: Child, reason: str) -> None:
        """Kill a child and its group now, for ``reason``; the marked follow when it is reaped."""
        child.kill_reason = reason
        self._system.kill_group(child.pid, signal.SIGKILL)

    # -- reaping

    def reap(self) -> Iterator[tuple[Group, Child, system.Exit]]:
        """Yield each child that has ended, and forget it. Foreign children are reaped silently.

        The rest of its process group is killed first, and all that has its mark afterwards. Its last messages wait for
        `take_said`: take them before anything else. Until the next child is asked for, its channels stay open and its
        row stays as it was.
        """
        by_pid = {child.pid: child for child in self._children}
        exits = self._system.reap(by_pid, lambda pid: self._groups.clear(by_pid[pid].row_number))
        self._kill_marked(by_pid[exit_.pid] for exit_ in exits if exit_.pid in by_pid)
        for exit_ in exits:
            child = by_pid.get(exit_.pid)
            if child is None:
                continue
            self._hear_out(child)
            yield self._children.pop(child), child, exit_
            self._scoreboard.free_row(child.row_number)
            child.close()

    def _kill_marked(self, ended: Iterator[Child]) -> None:
        now = self._system.monotonic()
        for child in ended:
            if child.mark:
                self._remains.expect(child.mark, self._children[child].noun, now)
        if self._remains.wake_at < float("inf"):
            self._remains.look(now, [child.pid for child in self._children])

    @property
    def wake_at(self) -> float:
        """When `reap` must be called at the latest (monotonic seconds); infinity if only a death counts."""
        return self._remains.wake_at

    def _hear_out(self, child: Child) -> None:
        for source in reversed(child.sources()):
            if not source.is_closed:
                self._loop.guard.attempt("hear the last words of a child", self._hear, child, source)
            self._loop.unwatch(source)
        self._loop.guard.attempt("read the rest of a child's output", child.hear_rest)
