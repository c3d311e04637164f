"""Carries out what the core of a `TaskPool` decides: sockets in, sockets out, futures ended. Runs in the program.

One thread, a greenlet where gevent has patched, waits for all sockets. Whoever submits sends to an idle process at
once, without that thread. One lock guards the core, the sockets, and the little master; futures end outside of it,
since they call others' code.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from rpccluster.ipc.messages import BootFailed, TaskProcess, TaskProcessGone
from rpccluster.pools.core import Action, Core, Ended, Kill, Result, Run, TakeBack, Task, kinds
from rpccluster.pools.future import Progress
from rpccluster.pools.program.link import RECEIVE_BYTES, Link
from rpccluster.pools.program.little_master import LittleMaster
from rpccluster.tasks import wire

__all__ = ["Edge"]

_logger = logging.getLogger("rpccluster.pools")

_KINDS = {"timed_out": kinds.TIMED_OUT, "out_of_memory": kinds.OUT_OF_MEMORY, "cancelled": kinds.CANCELLED}
_MOST_STARTS = 3  # of little masters in a row that end before they have a process
_DRAIN_SECONDS = 1.0  # for what processes told whose master has ended


class Edge:
    """The core with its processes. ``settle`` is given what has ended, in the order of the ends, without the lock."""

    def __init__(self, queue_size: int, options: dict[str, Any], settle: Callable[[list[Ended]], None]) -> None:
        """Start the little master. Raises OSError."""
        self.core = Core(queue_size)
        self.lock = threading.Lock()
        self.room = threading.Condition(self.lock)
        self._broken = ""  # why no task can run
        self._options = options
        self._settle = settle
        self._links: dict[int, Link] = {}
        self._ended: list[Any] = []
        self._is_ending = False
        self._space = bytearray(RECEIVE_BYTES)
        self._starts = 0
        self._wake, self._woken = socket.socketpair()
        for end in (self._wake, self._woken):
            end.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._woken, selectors.EVENT_READ, None)
        self._start()
        self.thread = threading.Thread(target=self._run, name="rpccluster-pool", daemon=True)
        self.thread.start()

    # -- for threads that submit

    @property
    def is_here(self) -> bool:
        """Whether the caller is the thread that dispatches: in a callback of a future."""
        return threading.current_thread() is self.thread

    def submit(self, task: Task) -> list[Ended]:
        """Take in a task, with the lock held. Returns what ends at once: everything does if no process can be had."""
        actions = self.core.submit(task, time.monotonic())
        if actions:
            self._perform(actions)
        return self._ends_of_the_broken() if self._broken else []

    def cancel(self, id: int) -> bool:
        """Cancel a task; False if it has ended."""
        with self.lock:
            task = self.core.tasks.get(id)
            if task is None:
                return False
            self._perform(self.core.cancel(task, time.monotonic()))
            ended = self._take_ended()
        self._settle(ended)
        return True

    def end(self) -> None:
        """End everything, and wait: what has not ended is cancelled."""
        with self.lock:
            self._is_ending = True
            self._wake_up()
        if not self.is_here:
            self.thread.join()

    def leave(self) -> None:
        """Let go of everything in a forked copy of the program."""
        self._little.leave()
        for link in self._links.values():
            link.close()
        for end in (self._wake, self._woken, self._selector):
            with contextlib.suppress(OSError):
                end.close()

    @property
    def master_pid(self) -> int:
        """The pid of the little master."""
        return self._little.pid

    def pids(self) -> list[int]:
        """Return the pids of the processes that take tasks now."""
        with self.lock:
            return [link.pid for link in self._links.values()]

    # -- the thread

    def _run(self) -> None:
        timeout = None
        while not self._is_ending:
            events = self._selector.select(timeout)
            with self.lock:
                for key, mask in events:
                    self._happened(key, mask)
                timeout = self._tick()
                ended = self._take_ended()
                if ended:
                    self.room.notify_all()
            if ended:
                self._settle(ended)
        self._close()

    def _tick(self) -> float | None:
        """Do what is due. Returns the seconds until more will be; None if nothing will."""
        at = self.core.wake_at
        if at is None:
            return None
        now = time.monotonic()
        if at <= now:
            self._perform(self.core.tick(now))
            at = self.core.wake_at
        return None if at is None else max(at - now, 0.0)

    def _happened(self, key: selectors.SelectorKey, mask: int) -> None:
        if isinstance(key.data, Link):
            if key.data.serial not in self._links:
                return  # its end was told in the same turn
            if mask & selectors.EVENT_WRITE:
                key.data.flush()
                self._watch(key.data)
            if mask & selectors.EVENT_READ:
                self._read(key.data)
        elif key.data is None:
            with contextlib.suppress(BlockingIOError):
                self._woken.recv(1024)
            for link in self._links.values():
                if link.has_unsent:
                    self._watch(link)
        else:
            self._hear()

    def _read(self, link: Link) -> None:
        results = []
        for message in link.receive(self._space):
            if type(message) is wire.Done:
                seconds = message.ended_at - message.started_at
                told = (link.pid, message)
                results.append(Result(message.task_id, message.attempt, message.outcome, seconds, told))
            elif type(message) is wire.Progress:
                task = self.core.tasks.get(message.task_id)
                if task is not None:
                    task.owner.note_progress(Progress(message.done, message.total, message.note))
        if results:
            self._perform(self.core.done(link.process, results, time.monotonic()))
        if link.is_ended:
            self.core.close(link.process)
            with contextlib.suppress(KeyError):
                self._selector.unregister(link)

    def _hear(self) -> None:
        """Hear what the little master tells."""
        for message, descriptors in self._little.channel.receive():
            if isinstance(message, TaskProcess):
                self._joined(Link(message.serial, message.pid, descriptors))
            elif isinstance(message, TaskProcessGone):
                self._gone(message)
            elif isinstance(message, BootFailed):
                self._failed(message.text)
        if self._little.channel.is_closed:
            self._lost_master()

    def _joined(self, link: Link) -> None:
        self._starts = 0
        self._links[link.serial] = link
        self._selector.register(link, selectors.EVENT_READ, link)
        self._perform(self.core.process_joined(link.process, time.monotonic()))

    def _gone(self, gone: TaskProcessGone) -> None:
        link = self._links.pop(gone.serial, None)
        if link is not None:
            self._bury(link, gone.number, _KINDS.get(gone.cause, kinds.PROCESS_LOST), gone)

    def _bury(self, link: Link, number: int, kind: str, gone: TaskProcessGone | None) -> None:
        while not link.is_ended and self._reads_more(link):
            pass
        with contextlib.suppress(KeyError):
            self._selector.unregister(link)
        self._perform(self.core.process_gone(link.process, number, kind, (link.pid, gone), time.monotonic()))
        link.close()

    def _reads_more(self, link: Link) -> bool:
        """Read what an ended process told; a process that it has forked may hold its socket open."""
        before = len(link.process.tasks)
        self._read(link)
        return len(link.process.tasks) != before

    # -- decisions

    def _perform(self, actions: list[Action]) -> None:
        for action in actions:
            if type(action) is Ended:
                self._ended.append(action)
            elif type(action) is Run:
                link = action.process.handle
                link.run(action.tasks)
                if link.has_unsent:
                    self._watch_soon(link)
            elif type(action) is TakeBack:
                taken = action.process.handle.take_back()
                self._perform(self.core.taken_back(action.process, set(taken), time.monotonic()))
            elif type(action) is Kill:
                self._little.kill_task(action.process.handle.serial, action.number)

    def _watch_soon(self, link: Link) -> None:
        """Have the thread that waits flush ``link``; gevent's selector hears of nothing new while it waits."""
        if self.is_here:
            self._watch(link)
        else:
            self._wake_up()

    def _watch(self, link: Link) -> None:
        """Watch a socket for what is of interest now."""
        if link.is_ended:
            return
        events = selectors.EVENT_READ | selectors.EVENT_WRITE if link.has_unsent else selectors.EVENT_READ
        with contextlib.suppress(KeyError):
            self._selector.modify(link, events, link)

    def _take_ended(self) -> list[Any]:
        ended, self._ended = self._ended, []
        return ended

    def _wake_up(self) -> None:
        with contextlib.suppress(OSError):  # it is awake, or has ended
            self._wake.send(b".")

    # -- the little master

    def _start(self) -> None:
        self._starts += 1
        self._little = LittleMaster(self._options)
        self._selector.register(self._little.channel, selectors.EVENT_READ, self._little)

    def _failed(self, reason: str) -> None:
        """Give up if no process has ever been ready; later ones are tried again by the little master."""
        if self._starts:
            self._give_up(reason)
        else:
            _logger.error("A process of the pool cannot boot: %s", reason)

    def _give_up(self, reason: str) -> None:
        """End all tasks, now and later: no process can be had."""
        self._broken = reason
        self._ended += self._ends_of_the_broken()

    def _ends_of_the_broken(self) -> list[Any]:
        return self.core.give_up(kinds.REJECTED, (None, self._broken))

    def _lost_master(self) -> None:
        """Start another one: the last has been killed, and its processes with it.

        Their cells are lost. What a process has begun is the one task whose ticket it has taken and that it did not
        tell of.
        """
        self._selector.unregister(self._little.channel)
        self._little.end()
        links, self._links = list(self._links.values()), {}
        for link in links:
            self.core.close(link.process)
        for link in links:
            self._await_end(link)
            self._perform([TakeBack(link.process)])
            number = link.process.tasks[0].number if link.process.tasks else 0
            self._bury(link, number, kinds.PROCESS_LOST, None)
        if self._broken:
            return
        if self._starts < _MOST_STARTS:
            self._start()
        else:
            self._give_up("the pool's master ends as soon as it is started")

    def _await_end(self, link: Link) -> None:
        until = time.monotonic() + _DRAIN_SECONDS
        while not link.is_ended and time.monotonic() < until:
            self._read(link)
            if not link.is_ended:
                time.sleep(0.001)

    def _close(self) -> None:
        """End the processes, and what was theirs."""
        self._little.end()
        with self.lock:
            for link in list(self._links.values()):
                self._read(link)
                link.close()
            self._ended += self.core.give_up(kinds.CANCELLED, None)
            self._links = {}
            ended = self._take_ended()
            for end in (self._wake, self._woken, self._selector):
                end.close()
            self.room.notify_all()
        self._settle(ended)
