"""The asyncio loop on which ``async def`` methods run, in a native thread of its own. Runs in the worker.

The loop is begun for the first such method. The hub hands calls over in batches: one wake-up of the loop for all that a
turn of the hub brought, when the hub is about to sleep. A loop that woke before that would wait for the interpreter. A
call that is over while its coroutine goes on has it cancelled, and again each second.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from contextvars import Context
from typing import Any, Callable, NoReturn

from rpccluster import system
from rpccluster.failure import error_text
from rpccluster.ipc.scoreboard import Cell
from rpccluster.log import escaped, logger
from rpccluster.worker.current import GRACE_SECONDS
from rpccluster.worker.native.before_patch import make_loop
from rpccluster.worker.native.call import NativeCall, NativeKind, Owner
from rpccluster.worker.native.primitives import start_new_thread, thread_id
from rpccluster.worker.service.later import Parked

__all__ = ["Coroutines"]

_TAKES_CONTEXT = sys.version_info >= (3, 11)  # whether `create_task` does


class Coroutines(NativeKind):
    """The asyncio loop of a worker and the calls on it; made for the first ``async def`` method."""

    limit = Cell.MAX_GREENLETS

    def __init__(self, hub_loop: Any, most: int, owner: Owner) -> None:
        """At most ``most`` calls run at once."""
        super().__init__(hub_loop, most, owner)
        self._hub_loop = hub_loop
        self._new: deque[CoroutineCall] = deque()  # handed over, not begun
        self._is_woken = False
        self._cancelled: dict[CoroutineCall, None] = {}  # calls that are over and have not come back
        self.loop: Any = make_loop()
        self.loop.set_exception_handler(_log_failure)
        self._is_closed = False
        self.thread_id = 0  # from its start on
        start_new_thread(self._work, ())

    def hand_over(self, method: Callable[..., Any], params: tuple[Any, ...]) -> NoReturn:
        call = CoroutineCall(self, method(*params))  # whose params may not fit
        self._new.append(call)
        if not self._is_woken:
            self._is_woken = True
            self._hub_loop.run_callback(self._wake)
        raise Parked(call)

    @property
    def cancelled(self) -> int:
        """Number of calls that are over and whose coroutines go on."""
        return len(self._cancelled)

    def left_behind(self) -> list[str]:
        """Return the names of what goes on although its call is over."""
        others = [task.get_coro() for task in asyncio.all_tasks(self.loop)]
        return [
            *(f"the coroutine of method {call.method}" for call in self._cancelled),
            *(f"the task {_name_of(other)}" for other in others if not _is_of_call(other)),
        ]

    # -- in the hub

    def _wake(self) -> None:
        if not self._is_closed:
            self.loop.call_soon_threadsafe(self._begin_new)

    def close(self) -> None:
        super().close()
        self._is_closed = True
        self.loop.call_soon_threadsafe(self.loop.stop)

    def note_over(self, call: NativeCall) -> None:
        assert isinstance(call, CoroutineCall)
        self._cancelled[call] = None
        self.loop.call_soon_threadsafe(call.cancel)

    def note_back(self, call: NativeCall) -> None:
        super().note_back(call)
        assert isinstance(call, CoroutineCall)
        self._cancelled.pop(call, None)

    # -- in the thread of the loop

    def _work(self) -> None:
        """Run the loop until it is closed, whatever a task of the service raises; the thread's main function."""
        system.displace_nobody()  # see `rpccluster.worker.native.threads`
        self.thread_id = thread_id()
        asyncio.set_event_loop(self.loop)
        while not self._is_closed:
            try:
                self.loop.run_forever()
            except BaseException as error:  # a SystemExit or KeyboardInterrupt of a task comes through
                logger.error("A task on the asyncio loop failed: %s", escaped(error_text(error)), exc_info=error)
        self.loop.close()

    def _begin_new(self) -> None:
        self._is_woken = False  # first: what is handed over from here on wakes the loop again
        new = self._new
        while new:
            new.popleft().begin()


class CoroutineCall(NativeCall):
    """A call for the loop."""

    __slots__ = ("_coroutine", "_task")

    kind: Coroutines

    def __init__(self, coroutines: Coroutines, coroutine: Any) -> None:
        super().__init__(coroutines)
        self._coroutine = coroutine  # until it begins
        self._task: Any = None

    # -- in the thread of the loop

    def begin(self) -> None:
        """Begin the coroutine, unless the call is over already."""
        if self.is_over:
            self._coroutine.close()
            self._coroutine = None
            self.kind.come_late(self)
            return
        context = Context()
        context.run(self.show)
        create: Any = self.kind.loop.create_task
        self._task = create(self._run(), context=context) if _TAKES_CONTEXT else context.run(create, self._run())

    async def _run(self) -> None:
        coroutine, self._coroutine = self._coroutine, None
        try:
            value = await coroutine
        except BaseException as error:  # a method's errors are its caller's affair, never the loop's
            self.end(error, None)
        else:
            self.end(None, value)

    def cancel(self, is_first: bool = True) -> None:
        """Cancel the coroutine, whose call is over; again each second while it goes on."""
        if self._coroutine is not None:  # a task that is cancelled before its first step would never run
            self.kind.loop.call_soon(self.cancel)
        elif self._task is not None and not self._task.done():
            if not is_first:
                logger.warning("Method %s goes on after it was cancelled", escaped(self.method))
            self._task.cancel()
            self.kind.loop.call_later(GRACE_SECONDS, self.cancel, False)


def _is_of_call(coroutine: Any) -> bool:
    return getattr(coroutine, "cr_code", None) is CoroutineCall._run.__code__


def _name_of(coroutine: Any) -> str:
    return str(getattr(coroutine, "__qualname__", coroutine))


def _log_failure(loop: Any, context: dict[str, Any]) -> None:
    """Log what failed on the loop outside of every call: an exception that nobody has retrieved, a failed callback."""
    error = context.get("exception")
    logger.error("The asyncio loop: %s", escaped(str(context.get("message"))), exc_info=error)
