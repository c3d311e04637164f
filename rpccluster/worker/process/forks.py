"""Detaches a child that the service forks from its worker. Runs in the worker, and in the child before its code.

A fork copies the whole worker: loop, connections, channels, scoreboard, and every running call. So the child would
answer callers, accept, obey the master, count in the worker's row, and run all calls once more. Python calls `Forks` in
the child before `os.fork` returns, whatever code forks. There

- the parts that hold descriptors close them (`Forks.add`);
- every watcher and callback is stopped, so that only the greenlet that forked goes on, as only the thread that forked
  does. Its sockets, locks and new greenlets work as before: the loop is the same, and empty, and looks once whether it
  has missed a signal;
- signals get their default meaning, except those that workers ignore, because pkill(1) takes the child for a worker.
  They are blocked around the fork: the worker's handlers would swallow one that comes too early.

A child that becomes another program at once needs none of this: every descriptor is close-on-exec.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
from typing import Any, Callable

import gevent
from gevent import subprocess
from gevent.monkey import get_original

from rpccluster import system
from rpccluster.log import logger

__all__ = ["Forks", "leave"]

_GOES_ON = ("check", "fork", "prepare")  # gevent's own watchers: descriptors to close, the hub's thread pool
_get_ident = get_original("_thread", "get_ident")
_set_handler = get_original("signal", "signal")
_MOST_FRAMES = 8  # between gevent's subprocess and the fork
_RESET = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, system.TELL_SIGNAL)


class Forks:
    """Detaches every forked child; made once in a worker. ``is_child`` says whether this process is such a child."""

    def __init__(self, title: str) -> None:
        """ps(1) shows ``title`` as the name of a child."""
        self.is_child = False
        self._title = title
        self._lets_go: list[Callable[[], object]] = []
        self._masks: dict[int, Any] = {}  # of the threads that are forking now
        os.register_at_fork(
            before=self._block_signals, after_in_parent=self._unblock_signals, after_in_child=self._enter_child
        )

    def add(self, let_go: Callable[[], object]) -> None:
        """Call ``let_go`` in each child, before it goes on."""
        self._lets_go.append(let_go)

    def end_child(self) -> None:
        """End this process if it is a child; called where the service's code returns to the worker's."""
        if self.is_child:
            leave()

    def _block_signals(self) -> None:
        self._masks[_get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, _RESET)

    def _unblock_signals(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._masks.pop(_get_ident()))

    def _enter_child(self) -> None:
        if not self.is_child:  # a child's own child is already detached, and may set signals as it likes
            self.is_child = True
            if not _becomes_another_program():
                self._let_go()
            for signum in _RESET:
                _set_handler(signum, signal.SIG_DFL)
        _have_the_loop_look()
        self._unblock_signals()

    def _let_go(self) -> None:
        patched, os.close = os.close, get_original("os", "close")  # gevent's own close waits for the loop
        for step in (_stop_what_waits, *self._lets_go):
            try:
                step()
            except Exception:  # the other steps follow all the same
                logger.exception("Cannot detach a forked child from its worker")
        os.close = patched
        system.set_title(self._title)


def leave(code: int = 0) -> None:
    """End the child, because the method that forked has returned, and nothing here needs its result."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code)


def _becomes_another_program() -> bool:
    """Return whether gevent's Popen has forked, which runs Python code up to the exec."""
    frame: Any = sys._getframe(2)
    for _ in range(_MOST_FRAMES):
        if frame is None:
            return False
        if frame.f_code is subprocess.Popen._execute_child.__code__:
            return True
        frame = frame.f_back
    return False


def _stop_what_waits() -> None:
    """Stop every watcher and callback of the loop: the worker's, and those of the other greenlets."""
    hub = gevent.hub._get_hub()
    if hub is None:  # a native thread has none
        return
    hub.loop.reinit()  # or the changes would reach the parent's epoll set
    if hasattr(gc, "unfreeze"):
        gc.unfreeze()  # frozen objects cannot be found
    with hub.loop.timer(0) as timer:
        watcher: Any = next(each for each in type(timer).__mro__ if each.__name__ == "watcher")
    callback: Any = type(hub.loop.run_callback(_do_nothing))
    known: dict[type, bool] = {}
    for thing in gc.get_objects():
        type_ = type(thing)
        is_one = known.get(type_)
        if is_one is None:
            is_one = known[type_] = issubclass(type_, (watcher, callback)) and type_.__name__ not in _GOES_ON
        if is_one:
            thing.stop()


def _have_the_loop_look() -> None:
    """Let the next wait of the loop end at once: libev looks then at what it believes to have been woken for.

    A signal that comes when the wait of the parent's loop has just ended wakes its next wait, by a descriptor that the
    child does not have. Without a look the child's loop would sleep through that and all later signals: one that waits
    for a process of its own would wait for ever.
    """
    hub = gevent.hub._get_hub()
    if hub is not None:
        timer = hub.loop.timer(0)
        timer.start(timer.close)


def _do_nothing() -> None:
    pass
