"""The threads of a `TaskPool`: who sends, who waits, who tells. Runs in the program.

One thread, a greenlet where gevent has patched, waits for all sockets. A thread that submits sends to an idle process
at once, and one that waits for a result does that thread's work meanwhile (`rpccluster.pools.program.sockets`): then
nothing passes from thread to thread. One lock guards the core and the processes; futures end outside of it, since they
call others' code.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from rpccluster.pools.core import Core, Ended, Task
from rpccluster.pools.future import TaskFuture
from rpccluster.pools.program.link import Link
from rpccluster.pools.program.processes import Processes
from rpccluster.pools.program.sockets import sockets

__all__ = ["Edge"]

#: So long nobody must have helped before the thread waits for the processes again: a program that waits for one result
#: after another does all the work itself meanwhile.
_ASIDE_SECONDS = 0.003
_MOST_ASIDE_SECONDS = 0.1  # between two looks at a helper that waits long

_logger = logging.getLogger("rpccluster.pools")

_monotonic = time.monotonic


class Edge:
    """The core with its processes. ``settle`` is given what has ended, in the order of the ends, without the lock."""

    def __init__(self, queue_size: int, options: dict[str, Any], settle: Callable[[list[Ended]], None]) -> None:
        """Start the little master. Raises OSError."""
        self.core = Core(queue_size)
        self.lock = threading.Lock()
        self.room = threading.Condition(self.lock)
        self._settle = settle
        self._is_ending = False
        self._due: float | None = None  # when a turn must come at the latest
        self._helping = threading.Lock()  # held by the thread that waits in place of the pool's
        self._helper: int | None = None
        self._helped_at = 0.0  # when one began, or ended
        self._is_aside = False
        with contextlib.ExitStack() as opened:
            self._sockets = sockets()
            opened.callback(self._sockets.close)
            self._wake, self._nudge = _Wake(self._sockets, is_light=False), _Wake(self._sockets, is_light=True)
            opened.callback(self._nudge.close)
            opened.callback(self._wake.close)
            self.processes = Processes(self.core, self._sockets, options, self._watch_soon)
            opened.callback(self.processes.end_master)
            self.thread = threading.Thread(target=self._run, name="rpccluster-pool", daemon=True)
            self.thread.start()
            opened.pop_all()

    # -- for threads that submit

    @property
    def is_here(self) -> bool:
        """Whether the caller is the thread that dispatches: in a callback of a future."""
        return threading.get_ident() in (self.thread.ident, self._helper)

    def submit(self, task: Task) -> list[Ended]:
        """Take in a task, with the lock held. Returns what ends at once: everything does if no process can be had."""
        actions = self.core.submit(task, _monotonic())
        if actions:
            self.processes.perform(actions)
        return self.processes.take_ended()

    def cancel(self, id: int) -> bool:
        """Cancel a task; False if it has ended."""
        with self.lock:
            task = self.core.tasks.get(id)
            if task is None:
                return False
            self.processes.perform(self.core.cancel(task, _monotonic()))
            ended = self.processes.take_ended()
        self._tell(ended)
        return True

    def help(self, future: TaskFuture, seconds: float | None) -> float | None:
        """Do the work of the pool's thread in this one until ``future`` has ended, or no time is left.

        Returns the seconds that are left. Does nothing if another thread does that already.
        """
        if not self._sockets.can_step_aside or self.is_here or not self._helping.acquire(False):
            return seconds
        began_at = self._helped_at = _monotonic()
        until = None if seconds is None else began_at + seconds
        self._helper = threading.get_ident()
        try:
            if not self._is_aside:
                self._step_aside()
            while not (future.done() or self._is_ending):
                left = self._seconds(until)
                if left == 0.0 and until is not None and _monotonic() >= until:
                    break
                self._turn(self._sockets.wait_for_light(left))
        finally:
            self._helper = None
            self._helped_at = now = _monotonic()
            if now - began_at > _ASIDE_SECONDS:
                self._step_back()
            self._helping.release()
            if self._due is not None:
                self._wake.up()
        return None if until is None else max(until - now, 0.0)

    def _step_aside(self) -> None:
        """Have the thread take no notice of the processes, and look soon whether there is still a helper."""
        self._is_aside = True
        self._sockets.step_aside()
        self._wake.up()

    def _step_back(self) -> None:
        if self._is_aside and not self._is_ending:
            self._is_aside = False
            self._sockets.step_back()

    def end(self) -> None:
        """End everything, and wait: what has not ended is cancelled."""
        self.end_soon()
        if not self.is_here:
            self.thread.join()

    def end_soon(self) -> None:
        """Have the thread end everything."""
        self._is_ending = True
        self._wake.up()
        self._nudge.up()

    def leave(self) -> None:
        """Let go of everything in a forked copy of the program."""
        for part in (self._sockets, self._wake, self._nudge):
            with contextlib.suppress(OSError):
                part.close()
        self.processes.leave()

    # -- the thread

    def _run(self) -> None:
        while not self._is_ending:
            seconds = self._seconds(None)
            if self._is_aside:
                look = max(_ASIDE_SECONDS, min(_monotonic() - self._helped_at, _MOST_ASIDE_SECONDS))
                seconds = look if seconds is None else min(seconds, look)
            happened = self._sockets.wait(seconds)
            if self._is_aside and self._helping.acquire(False):
                if _monotonic() - self._helped_at > _ASIDE_SECONDS:
                    self._step_back()
                self._helping.release()
            try:
                self._turn(happened)
            except Exception:
                _logger.exception("The pool has failed")
        with self._helping:
            self._close()

    def _seconds(self, until: float | None) -> float | None:
        """Return how long to wait; None for as long as nothing happens."""
        due = self._due
        if due is None or (until is not None and until < due):
            due = until
        return None if due is None else max(due - _monotonic(), 0.0)

    def _turn(self, happened: list[Any]) -> None:
        """Take in what has happened, do what is due, and tell what has ended.

        If that is interrupted, by a fault of ours or by a signal's handler in a thread that helps, nothing is sure any
        more: the pool ends, and all tasks with it, so that no future hangs.
        """
        try:
            ended = self._take_in(happened)
        except BaseException:
            self.processes.fail("the pool was interrupted while it dispatched")
            self.end_soon()
            raise
        if ended:
            self._tell(ended)

    def _take_in(self, happened: list[Any]) -> list[Ended]:
        with self.lock:
            processes = self.processes
            for of in happened:
                if isinstance(of, _Wake):
                    of.sleep()
                    processes.watch_all()
                else:
                    processes.happened(of)
            self._due = self.core.wake_at
            if self._due is not None and self._due <= _monotonic():
                processes.perform(self.core.tick(_monotonic()))
                self._due = self.core.wake_at
            ended = processes.take_ended()
            if ended:
                self.room.notify_all()
            return ended

    def _tell(self, ended: list[Ended]) -> None:
        self._settle(ended)
        if self._helper is not None and self._helper != threading.get_ident():
            self._nudge.up()  # it may be its future that has ended

    def _watch_soon(self, link: Link) -> None:
        """Have the thread that waits flush ``link``: what waits already may hear of nothing new."""
        if self._is_ending:
            return
        if self._sockets.can_step_aside or self.is_here:
            self.processes.watch(link)
        else:
            self._wake.up()

    def _close(self) -> None:
        with self.lock:
            self._sockets.close()  # first: libev aborts if it finds a watched descriptor closed
        self.processes.end_master()
        with self.lock:
            self.processes.close()
            ended = self.processes.take_ended()
            self._wake.close()
            self._nudge.close()
            self.room.notify_all()
        self._settle(ended)


class _Wake:
    """Wakes who waits for the sockets."""

    def __init__(self, sockets: Any, *, is_light: bool) -> None:
        self._send, self._receive = socket.socketpair()
        for end in (self._send, self._receive):
            end.setblocking(False)
        sockets.add(self._receive.fileno(), self, is_light=is_light)

    def up(self) -> None:
        with contextlib.suppress(OSError):  # it is awake, or has ended
            self._send.send(b".")

    def sleep(self) -> None:
        with contextlib.suppress(OSError):
            self._receive.recv(1024)

    def close(self) -> None:
        self._send.close()
        self._receive.close()
