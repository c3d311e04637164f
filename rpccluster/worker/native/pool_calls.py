"""Methods marked with ``@rpc(pool="NAME")``: their calls run in the task processes of a pool. Runs in the worker.

The worker hands the params to the dispatcher, packed, and answers the call when the task has ended. A call that is over
before has its task ended. The pool bounds how many there are.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Callable, NoReturn

import gevent

from rpccluster.ipc.scoreboard import Cell
from rpccluster.pools.cluster.submitter import Submitter, here
from rpccluster.pools.core import kinds
from rpccluster.pools.submission import Work, failure_of
from rpccluster.protocol.codec import make_packer, unpack
from rpccluster.tasks.wire import RPC
from rpccluster.worker.native.call import NativeCall, NativeKind, Owner
from rpccluster.worker.service.call_errors import Misfit, Told, is_misfit
from rpccluster.worker.service.later import Parked

__all__ = ["PoolCalls"]

_UNBOUNDED = 1 << 40

#: The names of the errors that callers get for a task that has not raised.
_ERRORS = {
    kinds.TIMED_OUT: "TimeoutError",
    kinds.PROCESS_LOST: "WorkerLost",
    kinds.OUT_OF_MEMORY: "WorkerLost",
    kinds.REJECTED: "PoolFull",
    kinds.CANCELLED: "Cancelled",
}


class PoolCalls(NativeKind):
    """The calls of a worker that run in one pool."""

    limit = Cell.MAX_GREENLETS  # never reached

    def __init__(self, hub_loop: Any, pool: str, owner: Owner) -> None:
        super().__init__(hub_loop, _UNBOUNDED, owner)
        self._pool = pool
        self._submitter: Submitter | None = None

    def hand_over(self, method: Callable[..., Any], params: tuple[Any, ...]) -> NoReturn:
        packed = make_packer().pack(params)
        submitter = self._submitter = self._submitter or here()
        call = PoolCall(self, submitter.new_id())
        work = Work(call.method, RPC, packed, None, None)  # type: ignore[arg-type]  # its limits are its pool's
        submitter.begin(call.id, self._pool, work, partial(_end, call, method, params))
        raise Parked(call)

    def left_behind(self) -> list[str]:
        """Return nothing: the worker waits for all tasks that it has submitted."""
        return []

    def note_over(self, call: NativeCall) -> None:
        assert isinstance(call, PoolCall)
        if self._submitter is not None:
            gevent.spawn(self._submitter.cancel, call.id)  # it may wait, for the client's thread or connection


class PoolCall(NativeCall):
    """A call for a pool; ``id`` is its task's."""

    __slots__ = ("id",)

    def __init__(self, calls: PoolCalls, id: int) -> None:
        super().__init__(calls)
        self.id = id


def _end(
    call: PoolCall,
    method: Callable[..., Any],
    params: tuple[Any, ...],
    kind: str,
    attempt: int,
    pid: int | None,
    detail: Any,
) -> None:
    """End a call as its task has ended."""
    if kind == kinds.OK:
        call.end(None, unpack(detail.payload))
        return
    failure = failure_of(call.id, attempt, kind, pid, detail)
    if kind != kinds.RAISED:
        said = ": ".join(text for text in (failure.type, failure.message) if text)
        call.end(Told(f"{_ERRORS[kind]}: {said}"), None)
    elif failure.type == "TypeError" and is_misfit(method, list(params)):
        call.end(Misfit(TypeError(failure.message)), None)
    else:
        call.end(Told(f"{failure.type}: {failure.message}", failure.traceback), None)
