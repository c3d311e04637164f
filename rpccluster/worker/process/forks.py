"""What a child that the service forks has of its worker: nothing. Runs in the worker, and in the child before its code.

A fork copies the worker whole: loop, connections, channels, scoreboard, and every other call as it stands. So the
child would answer callers, accept, take the master's orders, count in the worker's row, and run all calls once more.
Python calls `Forks` in the child before `os.fork` returns, whoever forks. There

- the parts that hold descriptors let go of them (`Forks.add`);
- everything that waits is stopped, so that of all greenlets the one that forked goes on alone, as of all threads the
  one that forked does. Its sockets, locks and greenlets to come work as ever: the loop is the same, and empty;
- signals mean what they mean in any process, but for those that workers ignore: the child looks like one to pkill(1).
  They are blocked around the fork: one that comes too early would be lost to the worker's handlers.

A child that becomes another program at once has nothing left by that: every descriptor is close-on-exec.
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

_GOES_ON = ("check", "fork", "prepare")  # watchers of gevent's own: descriptors to be closed, the hub's thread pool
_get_ident = get_original("_thread", "get_ident")
_set_handler = get_original("signal", "signal")
_MOST_FRAMES = 8  # between gevent's subprocess and the fork
_RESET = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, system.TELL_SIGNAL)


class Forks:
    """Made once in a worker. ``is_child`` says whether this process is a child that the service has forked."""

    def __init__(self, title: str) -> None:
        """``title`` is shown as a child's name in ps(1)."""
        self.is_child = False
        self._title = title
        self._lets_go: list[Callable[[], object]] = []
        self._masks: dict[int, Any] = {}  # of the threads that fork right now
        os.register_at_fork(
            before=self._block_signals, after_in_parent=self._unblock_signals, after_in_child=self._enter_child
        )

    def add(self, let_go: Callable[[], object]) -> None:
        """Call ``let_go`` in each child, before it goes on."""
        self._lets_go.append(let_go)

    def end_child(self) -> None:
        """End this process if it is a child: called where the service's code comes back to the worker's."""
        if self.is_child:
            leave()

    def _block_signals(self) -> None:
        self._masks[_get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, _RESET)

    def _unblock_signals(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._masks.pop(_get_ident()))

    def _enter_child(self) -> None:
        if not self.is_child:  # a child's own child has nothing to let go of, and what it sets is its affair
            self.is_child = True
            if not _becomes_another_program():
                self._let_go()
            for signum in _RESET:
                _set_handler(signum, signal.SIG_DFL)
        self._unblock_signals()

    def _let_go(self) -> None:
        patched, os.close = os.close, get_original("os", "close")  # gevent's waits for the loop
        for step in (_stop_what_waits, *self._lets_go):
            try:
                step()
            except Exception:  # the rest is let go of all the same
                logger.exception("A forked child cannot let go of its worker")
        os.close = patched
        system.set_title(self._title)


def leave(code: int = 0) -> None:
    """End the child: the method that forked has returned, and nobody here has a use for its result."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code)


def _becomes_another_program() -> bool:
    """Whether this fork is that of gevent's Popen, which runs in Python up to the exec."""
    frame: Any = sys._getframe(2)
    for _ in range(_MOST_FRAMES):
        if frame is None:
            return False
        if frame.f_code is subprocess.Popen._execute_child.__code__:
            return True
        frame = frame.f_back
    return False


def _stop_what_waits() -> None:
    """Stop every watcher and callback of the loop there are: those of the worker, and of greenlets that stay behind."""
    hub = gevent.hub._get_hub()
    if hub is None:  # of a native thread, which has none
        return
    hub.loop.reinit()  # or the parent's epoll set would be told
    if hasattr(gc, "unfreeze"):
        gc.unfreeze()  # what is frozen cannot be found
    with hub.loop.timer(0) as timer:
        watcher: Any = next(kind for kind in type(timer).__mro__ if kind.__name__ == "watcher")
    callback: Any = type(hub.loop.run_callback(_do_nothing))
    kinds: dict[type, bool] = {}
    for thing in gc.get_objects():
        kind = type(thing)
        is_one = kinds.get(kind)
        if is_one is None:
            is_one = kinds[kind] = issubclass(kind, (watcher, callback)) and kind.__name__ not in _GOES_ON
        if is_one:
            thing.stop()


def _do_nothing() -> None:
    pass
