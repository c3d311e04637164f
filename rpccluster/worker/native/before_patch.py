"""Makes asyncio loops that run in a native thread beside gevent, of parts from before its patch. Runs in the worker.

gevent has patched the parts of which asyncio makes a loop: its selector runs a hub, and the threads of its executor are
greenlets of the loop's own thread. There `asyncio.to_thread` and `loop.getaddrinfo` hold the loop up, or never end. So
a loop from here has its own parts:

- the selector: uvloop has one of its own; else it is the original epoll;
- the default executor has native threads, a native queue, and futures with native locks;
- names are looked up in threads of that executor by the original functions, or by uvloop;
- the pair of sockets that wakes an asyncio loop is an original one.

Two things cannot be had, and raise NotImplementedError at once: signal handlers, since signals reach the main thread,
and subprocesses, since libev in the main thread reaps every child of the process, and uvloop's would take SIGCHLD away
from it. In a forked child a copy of such a loop raises RuntimeError, since the thread that ran it stayed in the worker.
"""

from __future__ import annotations

import _socket
import asyncio
import importlib
import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Callable

import gevent.hub
from gevent.monkey import get_original

from rpccluster.worker.native.primitives import Condition, SimpleQueue, start_new_thread, tell_forked

uvloop: Any
try:
    uvloop = importlib.import_module("uvloop")
except ImportError:
    uvloop = None

__all__ = ["EpollLoop", "LoopExecutor", "make_loop"]

MOST_THREADS = min(32, (os.cpu_count() or 1) + 4)  # as the standard library has it

NO_SIGNALS = (
    "cannot handle a signal in the asyncio loop of a worker: signals reach its main thread; use signal.signal in "
    "worker_started"
)
NO_PROCESSES = (
    "cannot start a subprocess from the asyncio loop of a worker: the main thread reaps all its children; use "
    "gevent.subprocess in a plain method, or a task process"
)
FORKED = "cannot use the {} of a worker in a child that it has forked: the threads stayed in the worker"

_getaddrinfo = get_original("socket", "getaddrinfo")
_getnameinfo = get_original("socket", "getnameinfo")


class LoopExecutor(ThreadPoolExecutor):
    """The default executor of a worker's loop: native threads, which begin when they are needed.

    It is a ThreadPoolExecutor only because asyncio takes no other as a loop's default.
    """

    def __init__(self, max_workers: int = MOST_THREADS) -> None:
        super().__init__(max_workers)
        self._jobs = SimpleQueue()
        self._changing: Any = Condition()  # for all below
        self._idle = 0  # threads that wait for a job, less jobs that wait for a thread
        self._running = 0  # threads
        self._is_shut = self._cancels = self._is_forked = False
        tell_forked(self)

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run ``function`` in a native thread. Raises RuntimeError after `shutdown`, and in a forked child."""
        future = _NativeFuture()
        with self._changing:
            if self._is_forked:
                raise RuntimeError(FORKED.format("executor"))
            if self._is_shut:
                raise RuntimeError("cannot take another job: the executor was shut down")
            self._jobs.put((future, function, args, kwargs))
            self._idle -= 1
            if self._idle < 0 and self._running < self._max_workers:
                self._idle += 1
                self._running += 1
                start_new_thread(self._work, ())
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more jobs, and end the threads after the last one. ``wait`` holds up the thread that calls."""
        with self._changing:
            if not self._is_shut:
                self._jobs.put(None)
            self._is_shut = True
            self._cancels = self._cancels or cancel_futures
            while wait and self._running:
                self._changing.wait()

    def forked(self) -> None:
        """Take no more jobs, in a forked child."""
        self._changing = Condition()  # a thread of the worker may hold the lock
        self._is_forked, self._running = True, 0

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                break
            future, function, args, kwargs = job
            if self._cancels:
                future.cancel()
            if future.set_running_or_notify_cancel():
                _run(future, function, args, kwargs)
            del job, future, function, args, kwargs  # what they hold may end now
            with self._changing:
                self._idle += 1
        self._jobs.put(None)  # for the next thread
        hub = gevent.hub._get_hub()  # of this thread, if something patched has waited here
        if hub is not None:
            hub.destroy(destroy_loop=True)
        with self._changing:
            self._running -= 1
            self._changing.notify_all()


class _NativeFuture(Future):
    """A future with native locks: completed by a native thread, awaited by a loop."""

    def __init__(self) -> None:
        super().__init__()
        self._condition: Any = Condition()


def _run(future: Future[Any], function: Callable[..., Any], args: Any, kwargs: Any) -> None:
    try:
        result = function(*args, **kwargs)
    except BaseException as error:  # a SystemExit, too, is its caller's affair
        future.set_exception(error)
    else:
        future.set_result(result)


class _BesideGevent:
    """What both loops have in common: an executor of their own, and errors instead of what would never end."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._native_executor = LoopExecutor()
        self.set_default_executor(self._native_executor)  # type: ignore[attr-defined]
        tell_forked(self)

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Let the default executor take no more jobs, and wait for its threads, at most ``timeout`` seconds."""
        ended = asyncio.Event()

        def wait() -> None:
            self._native_executor.shutdown()
            self.call_soon_threadsafe(ended.set)  # type: ignore[attr-defined]

        start_new_thread(wait, ())
        await asyncio.wait_for(ended.wait(), timeout)

    def add_signal_handler(self, *arguments: Any) -> None:
        """Raise NotImplementedError."""
        raise NotImplementedError(NO_SIGNALS)

    def remove_signal_handler(self, signum: int) -> bool:
        """Return False, since there is none."""
        return False

    async def subprocess_exec(self, *arguments: Any, **options: Any) -> Any:
        """Raise NotImplementedError."""
        raise NotImplementedError(NO_PROCESSES)

    async def subprocess_shell(self, *arguments: Any, **options: Any) -> Any:
        """Raise NotImplementedError."""
        raise NotImplementedError(NO_PROCESSES)

    def forked(self) -> None:
        """Raise RuntimeError, in a forked child, from all that would wait for the thread that is not there."""

        def refuse(*arguments: Any, **options: Any) -> Any:
            raise RuntimeError(FORKED.format("asyncio loop"))

        for name in ("call_soon", "call_soon_threadsafe", "call_at", "call_later", "run_forever", "run_in_executor"):
            setattr(self, name, refuse)
        for name in ("is_running", "close"):  # close raises otherwise, since a copied loop seems to run
            setattr(self, name, bool)


class EpollLoop(_BesideGevent, asyncio.SelectorEventLoop):  # type: ignore[misc]
    """asyncio's loop over the original epoll."""

    def __init__(self) -> None:
        super().__init__(get_original("selectors", "EpollSelector")())

    async def getaddrinfo(
        self, host: Any, port: Any, *, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> Any:
        """Look up ``host`` by the original function: the patched one makes a hub in the executor's thread."""
        return await self.run_in_executor(None, _getaddrinfo, host, port, family, type, proto, flags)

    async def getnameinfo(self, sockaddr: Any, flags: int = 0) -> Any:
        """Look up the names of ``sockaddr`` by the original function."""
        return await self.run_in_executor(None, _getnameinfo, sockaddr, flags)

    def _make_self_pipe(self: Any) -> None:
        self._ssock, self._csock = _socket.socketpair()
        self._ssock.setblocking(False)
        self._csock.setblocking(False)
        self._internal_fds += 1
        self._add_reader(self._ssock.fileno(), self._read_from_self)


if uvloop is not None:

    class UvLoop(_BesideGevent, uvloop.Loop):
        """uvloop's loop."""


def make_loop() -> asyncio.AbstractEventLoop:
    """Make a loop, to be run in a native thread: uvloop's where uvloop is installed, else asyncio's over epoll."""
    return EpollLoop() if uvloop is None else UvLoop()
