"""The task processes of a `TaskPool`, and its little master: what they tell goes to the core, whose actions are done.

Owns no thread and no lock: each call is made with the pool's lock held. What has ended is collected in ``ended``, for
a caller that has let go of the lock. Runs in the program.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from rpccluster.ipc.messages import BootFailed, TaskProcess, TaskProcessGone
from rpccluster.pools.core import Action, Core, Ended, Kill, Run, TakeBack, kinds
from rpccluster.pools.future import Progress
from rpccluster.pools.program.link import RECEIVE_BYTES, Link
from rpccluster.pools.program.little_master import LittleMaster
from rpccluster.pools.program.sockets import Sockets
from rpccluster.tasks import wire

__all__ = ["Processes"]

_logger = logging.getLogger("rpccluster.pools")

_MOST_STARTS = 3  # of little masters in a row that end before they have a process
_DRAIN_SECONDS = 1.0  # for what processes told whose master has ended

_monotonic = time.monotonic


class Processes:
    """All processes of one pool. ``watch_soon`` has the room of a `Link` waited for that cannot send all."""

    def __init__(
        self, core: Core, sockets: Sockets, options: dict[str, Any], watch_soon: Callable[[Link], None]
    ) -> None:
        """Start the little master. Raises OSError."""
        self._core = core
        self._sockets = sockets
        self._options = options
        self._watch_soon = watch_soon
        self._links: dict[int, Link] = {}
        self._broken: tuple[str, str] | None = None  # how all tasks end from now on, and why
        self._starts = 0  # of little masters, since the last process
        self._space = bytearray(RECEIVE_BYTES)
        self.ended: list[Any] = []
        self._start()

    @property
    def pids(self) -> list[int]:
        """The pids of those that take tasks."""
        return [link.pid for link in self._links.values()]

    @property
    def master_pid(self) -> int:
        """The pid of the little master."""
        return self._little.pid

    def perform(self, actions: list[Action]) -> None:
        """Carry out what the core has decided."""
        for action in actions:
            if type(action) is Ended:
                self.ended.append(action)
            elif type(action) is Run:
                link = action.process.handle
                link.run(action.tasks)
                if link.has_unsent:
                    self._watch_soon(link)
            elif type(action) is TakeBack:
                taken = action.process.handle.take_back()
                self.perform(self._core.taken_back(action.process, set(taken), _monotonic()))
            elif type(action) is Kill:
                self._little.kill_task(action.process.handle.serial, action.number)

    def take_ended(self) -> list[Any]:
        """Return what has ended since the last time; all there is, if no process can be had."""
        if self._broken is not None and self._core.tasks:
            self._end_all(*self._broken)
        ended = self.ended
        if ended:
            self.ended = []
        return ended

    def fail(self, reason: str) -> None:
        """End all tasks, now and later."""
        self._broken = (kinds.PROCESS_LOST, reason)

    # -- what is told

    def happened(self, of: Any) -> None:
        """Take in what a socket has: a `Link`'s, or the little master's."""
        if isinstance(of, Link):
            if of.serial in self._links:  # else its end was told in the same turn
                if of.has_unsent:
                    of.flush()
                    self.watch(of)
                self._read(of)
        elif of is self._little:
            self._hear()

    def watch(self, link: Link) -> None:
        """Wait for room in its socket, or no longer."""
        if not link.is_ended:
            self._sockets.watch(link.fileno(), link, for_room=link.has_unsent)

    def watch_all(self) -> None:
        """Wait for room wherever something is unsent."""
        for link in self._links.values():
            if link.has_unsent:
                self.watch(link)

    def _read(self, link: Link) -> None:
        results: list[Any] = []
        for message in link.receive(self._space):
            if type(message) is wire.Done:
                _, task_id, attempt, outcome, _, started_at, ended_at = message
                results.append((task_id, attempt, outcome, ended_at - started_at, (link.pid, message)))
            elif type(message) is wire.Progress:
                task = self._core.tasks.get(message.task_id)
                if task is not None:
                    task.owner.note_progress(Progress(message.done, message.total, message.note))
        if results:
            self.perform(self._core.done(link.process, results, _monotonic()))
        if link.is_ended:
            self._core.close(link.process)
            self._sockets.drop(link.fileno(), is_light=True)

    def _hear(self) -> None:
        for message, descriptors in self._little.channel.receive():
            if isinstance(message, TaskProcess):
                self._joined(Link(message.serial, message.pid, descriptors))
            elif isinstance(message, TaskProcessGone):
                link = self._links.pop(message.serial, None)
                if link is not None:
                    self._bury(link, message.number, kinds.of_cause(message.cause), message)
            elif isinstance(message, BootFailed):
                self._failed(message.text)
        if self._little.channel.is_closed:
            self._lost_master()

    def _joined(self, link: Link) -> None:
        self._starts = 0
        self._links[link.serial] = link
        self._sockets.add(link.fileno(), link, is_light=True)
        self.perform(self._core.process_joined(link.process, _monotonic()))

    def _bury(self, link: Link, number: int, kind: str, gone: TaskProcessGone | None) -> None:
        """Take in the end of a process, after all that it told; one that it has forked may hold its socket open."""
        before = -1
        while not link.is_ended and len(link.process.tasks) != before:
            before = len(link.process.tasks)
            self._read(link)
        self._sockets.drop(link.fileno(), is_light=True)
        self.perform(self._core.process_gone(link.process, number, kind, (link.pid, gone), _monotonic()))
        link.close()

    # -- the little master

    def _start(self) -> None:
        self._starts += 1
        self._little = LittleMaster(self._options)
        self._sockets.add(self._little.channel.fileno(), self._little, is_light=False)

    def _failed(self, reason: str) -> None:
        """Give up if no process has ever been ready; later ones are tried again by the little master."""
        if self._starts:
            self._broken = (kinds.REJECTED, reason)
        else:
            _logger.error("A process of the pool cannot boot: %s", reason)

    def _lost_master(self) -> None:
        """Start another one: the last has been killed, and its processes with it.

        Their cells are lost. What a process has begun is the one task whose ticket it has taken and that it did not
        tell of.
        """
        self._sockets.drop(self._little.channel.fileno(), is_light=False)
        self._little.end()
        links, self._links = list(self._links.values()), {}
        for link in links:
            self._core.close(link.process)
        for link in links:
            self._await_end(link)
            self.perform([TakeBack(link.process)])
            number = link.process.tasks[0].number if link.process.tasks else 0
            self._bury(link, number, kinds.PROCESS_LOST, None)
        if self._starts >= _MOST_STARTS:
            self._broken = self._broken or (kinds.REJECTED, "the pool's master ends as soon as it is started")
        elif not self._broken:
            self._start()

    def _await_end(self, link: Link) -> None:
        until = _monotonic() + _DRAIN_SECONDS
        while not link.is_ended and _monotonic() < until:
            self._read(link)
            if not link.is_ended:
                time.sleep(0.001)

    # -- the end

    def end_master(self) -> None:
        """End all processes, and wait for that; without the lock."""
        self._little.end()

    def close(self) -> None:
        """Let go of the processes, which have ended; what they have not told is cancelled."""
        links, self._links = list(self._links.values()), {}
        for link in links:
            self._read(link)
            link.close()
        self._end_all(*(self._broken or (kinds.CANCELLED, None)))

    def _end_all(self, kind: str, reason: str | None) -> None:
        self.ended += self._core.give_up(kind, (None, reason))

    def leave(self) -> None:
        """Let go of everything in a forked copy of the program."""
        self._little.leave()
        for link in self._links.values():
            link.close()
