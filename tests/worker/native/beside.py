"""A service whose calls run beside the greenlets, for the tests of threads and coroutines."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from typing import Any

import rpccluster
from rpccluster.worker.native.primitives import allocate_lock, thread_id

from ..rig import Gated

MARK: contextvars.ContextVar[str] = contextvars.ContextVar("mark", default="nothing")
ERRORS: dict[str, type[BaseException]] = {
    "value": ValueError,
    "exit": SystemExit,
    "type": TypeError,
    "cancelled": asyncio.CancelledError,
}


class Gate:
    """What holds a native thread up until the test opens it."""

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._lock.acquire()
        self.is_reached = False

    def pass_through(self) -> None:
        self.is_reached = True
        self._lock.acquire()
        self._lock.release()

    def open(self) -> None:
        if self._lock.locked():
            self._lock.release()


class Beside(Gated):
    """Methods in threads (``t_…``), on the loop (``a_…``) and in greenlets."""

    def __init__(self) -> None:
        super().__init__()
        self.thread_gates: dict[Any, Gate] = {}
        self.seen: dict[Any, Any] = {}  # what a call has seen of itself
        self.cancelled: list[Any] = []

    def gate(self, name: Any) -> Gate:
        return self.thread_gates.setdefault(name, Gate())

    def open_all(self) -> None:
        super().open_all()
        for gate in self.thread_gates.values():
            gate.open()

    @rpccluster.rpc(thread=True)
    def t_echo(self, value: Any = None) -> Any:
        return value

    @rpccluster.rpc(thread=True)
    def t_order(self, value: Any) -> Any:
        time.sleep(0.001)
        return value

    @rpccluster.rpc(thread=True)
    def t_ident(self) -> int:
        return thread_id()

    @rpccluster.rpc(thread=True)
    def t_wait(self, name: Any) -> Any:
        self.began.append(name)
        self.gate(name).pass_through()
        self.ended.append(name)
        return name

    @rpccluster.rpc(thread=True, timeout=0.05)
    def t_wait_soon(self, name: Any) -> Any:
        self.seen[name] = rpccluster.current_call()
        return self.t_wait(name)

    @rpccluster.rpc(thread=True)
    def t_fail(self, kind: str, text: str) -> None:
        raise ERRORS[kind](text)

    @rpccluster.rpc(thread=True)
    def t_mark(self, value: str) -> str:
        before = MARK.get()
        MARK.set(value)
        return before

    @rpccluster.rpc(thread=True, timeout=5)
    def t_call(self) -> list[Any]:
        return shown()

    @rpccluster.rpc(thread=True)
    def t_odd(self) -> Any:
        return object()

    async def a_echo(self, value: Any = None) -> Any:
        return value

    async def a_ident(self) -> int:
        return thread_id()

    async def a_sleep(self, seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds

    async def a_wait(self, name: Any) -> Any:
        """Until it is cancelled, or the test opens the gate of that name."""
        self.began.append(name)
        gate = self.gate(name)
        try:
            while gate._lock.locked():
                await asyncio.sleep(0.002)
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise
        self.ended.append(name)
        return name

    @rpccluster.rpc(timeout=0.05)
    async def a_wait_soon(self, name: Any) -> Any:
        self.seen[name] = rpccluster.current_call()
        return await self.a_wait(name)

    async def a_deaf(self, name: Any, times: int) -> Any:
        """Goes on when it is cancelled, so many times."""
        self.seen[name] = rpccluster.current_call()
        while times:
            try:
                await self.a_wait(name)
            except asyncio.CancelledError:
                times -= 1
        self.ended.append(name)

    async def a_fail(self, kind: str, text: str) -> None:
        await asyncio.sleep(0)
        raise ERRORS[kind](text)

    async def a_mark(self, value: str) -> str:
        before = MARK.get()
        MARK.set(value)
        await asyncio.sleep(0)
        return before

    @rpccluster.rpc(timeout=5)
    async def a_call(self) -> list[Any]:
        return await asyncio.ensure_future(self._shown())

    async def _shown(self) -> list[Any]:
        return shown()

    async def a_odd(self) -> Any:
        return object()

    async def a_child_exits(self) -> str:
        """Begins a task that would end the loop."""

        async def leaves() -> None:
            raise SystemExit(3)

        task = asyncio.ensure_future(leaves())
        await asyncio.sleep(0.01)
        return repr(task.exception())

    @rpccluster.rpc(timeout=5)
    def g_call(self) -> list[Any]:
        return shown()


def shown() -> list[Any]:
    """What a call sees of itself."""
    call: Any = rpccluster.current_call()
    left = call.deadline - time.monotonic()
    is_main = threading.current_thread() is threading.main_thread()
    return [call.method, call.peer, call.msgid, 4 < left <= 5, call.cancelled, call.identity, is_main]
