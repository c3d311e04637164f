"""The native threads that run the methods marked with ``@rpc(thread=True)``. Runs in the worker.

They are the worker's own, beside those of gevent's hub, which name look-ups use. They are begun when calls need them,
and live as long as their worker. Nothing stops a thread: a call that is over while its method goes on has *lost* its
thread, until the method returns. Everything that they are made of is from before gevent's patch (`primitives`).

Threads compete for the interpreter, so as few as possible are woken. The hub rings once for all calls of its turn, when
it is about to sleep; that wakes one thread. A thread that takes a call, and sees that more wait, wakes the next one
before it runs its own, unless another is waking up just now. So short calls are run by one thread, one after another,
and when one blocks, the next thread is there. The flag ``_is_rung`` is cleared by the thread that wakes, before it
looks for a call: a call that was added while the flag was set is seen by it.
"""

from __future__ import annotations

from collections import Counter, deque
from contextvars import Context
from typing import Any, Callable, NoReturn

import gevent.hub

from rpccluster import system
from rpccluster.ipc.scoreboard import Cell
from rpccluster.log import escaped, logger
from rpccluster.worker.native.call import NativeCall, NativeKind, Owner
from rpccluster.worker.native.primitives import SimpleQueue, allocate_lock, start_new_thread
from rpccluster.worker.service.call_errors import Misfit, is_misfit
from rpccluster.worker.service.later import Parked

__all__ = ["Threads"]


class Threads(NativeKind):
    """The threads of a worker and the calls in them; made for the first method that wants a thread."""

    limit = Cell.THREAD_QUEUE

    def __init__(self, hub_loop: Any, threads: int, queue: int, owner: Owner) -> None:
        """At most ``threads`` calls run, and ``queue`` wait."""
        super().__init__(hub_loop, threads + queue, owner)
        self._threads = threads
        self._hub_loop = hub_loop
        self._waiting: deque[ThreadCall] = deque()
        self._bell: Any = SimpleQueue()  # each item wakes one thread
        self._is_rung = False
        self._changing = allocate_lock()  # for the next one
        self._started = 0
        self._was_refused = False  # the last one that was to be started
        self._lost: dict[ThreadCall, None] = {}

    @property
    def lost(self) -> int:
        """Number of threads whose call is over, and whose method goes on."""
        return len(self._lost)

    def lost_methods(self) -> Counter[str]:
        """Count the methods that go on although their call is over."""
        return Counter(escaped(call.method) for call in self._lost)

    def hand_over(self, method: Callable[..., Any], params: tuple[Any, ...]) -> NoReturn:
        if self._started <= self.taken and self._started < self._threads:
            self._start_one()
        call = ThreadCall(self, method, params)
        self._waiting.append(call)
        if not self._is_rung:
            self._is_rung = True
            self._hub_loop.run_callback(self._bell.put, None)
        raise Parked(call)

    def left_behind(self) -> list[str]:
        """Return the names of what goes on although its call is over."""
        return [f"the thread of method {call.method}" for call in self._lost]

    def _start_one(self) -> None:
        """Start one more thread. Raises RuntimeError if there is none yet, and none can be had."""
        try:
            start_new_thread(self._work, ())
        except RuntimeError as error:
            if not self._started:
                raise
            if not self._was_refused:
                logger.warning("Cannot start a thread beside %d others, and will try again: %s", self._started, error)
            self._was_refused = True
        else:
            with self._changing:
                self._started += 1
            self._was_refused = False

    def set_limits(self, threads: int, queue: int) -> None:
        """Allow ``threads`` and ``queue`` from now on; surplus threads end when they are free."""
        self._threads = threads
        for _ in range(self._started - threads):
            self._bell.put(None)
        self.set_most(threads + queue)

    def _work(self) -> None:
        """Run calls until this thread is one too many; the thread's main function."""
        system.displace_nobody()  # the hub, which has woken this thread, is about to give up the interpreter anyway
        waiting, bell = self._waiting, self._bell
        while True:
            while not waiting:
                bell.get()
                self._is_rung = False
                if self._started > self._threads:
                    break
            if self._started > self._threads and self._leave():
                return
            try:
                call = waiting.popleft()
            except IndexError:  # another thread was faster
                continue
            if waiting and not self._is_rung:
                self._is_rung = True
                bell.put(None)
            try:
                call.run()
            except BaseException:  # no known fault; but the thread must go on
                logger.critical("A thread of the worker failed outside of its method", exc_info=True)
            del call  # what it holds may end now

    def _leave(self) -> bool:
        """Return whether this thread is one too many, and is to end. Another one takes over what has woken it."""
        with self._changing:
            if self._started <= self._threads:
                return False
            self._started -= 1
        if self._waiting:
            self._bell.put(None)
        hub = gevent.hub._get_hub()  # of this thread, if something patched has waited here
        if hub is not None:
            hub.destroy(destroy_loop=True)
        return True

    # -- in the hub

    def note_over(self, call: NativeCall) -> None:
        assert isinstance(call, ThreadCall)
        if call.has_begun:
            self._lost[call] = None
            self._owner.note_lost(len(self._lost), self._threads)

    def note_back(self, call: NativeCall) -> None:
        super().note_back(call)
        assert isinstance(call, ThreadCall)
        if call in self._lost:
            del self._lost[call]
            self._owner.note_lost(len(self._lost), self._threads)


class ThreadCall(NativeCall):
    """A call for a thread."""

    __slots__ = ("_function", "_params", "has_begun")

    def __init__(self, threads: Threads, function: Callable[..., Any], params: tuple[Any, ...]) -> None:
        super().__init__(threads)
        self._function = function
        self._params = params
        self.has_begun = False

    def run(self) -> None:
        """Run the method in this thread."""
        self.has_begun = True  # set before `is_over` is read: the hub reads them the other way round
        if self.is_over:
            self.kind.come_late(self)
            return
        function, params = self._function, self._params
        self._params = ()  # the method alone keeps them from here on
        context = Context()
        context.run(self.show)
        try:
            value = context.run(function, *params)
        except BaseException as error:  # a method's errors are its caller's affair, never the worker's
            if isinstance(error, TypeError) and is_misfit(function, list(params)):
                error = Misfit(error)
            self.end(error, None)
        else:
            self.end(None, value)
