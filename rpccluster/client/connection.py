"""One connection shared by threads: calls go out in turn, and one of those who wait reads for all of them.

The one who reads is the leader; the others are followers and sleep until their call has ended or the lead is
handed to them. A connection ends once and for good; reconnecting is its client's affair.
"""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Iterable
from typing import Any

from rpccluster.client.calls import Call, Calls, CallState
from rpccluster.client.wire import Wire
from rpccluster.errors import CallTimeout, NotSent

__all__ = ["Connection"]

_IDLE_SECONDS = 0.01  # after such a silence look whether the server is still there before sending
_PUSH_SECONDS = 0.05  # so often one who only writes looks whether the lead has become free

_PENDING = CallState.PENDING


class Connection:
    """A connected wire and its calls. Every method may be called from any thread."""

    def __init__(self, wire: Wire, max_message_size: int) -> None:
        self.is_open = True
        self._wire = wire
        self._calls = Calls(max_message_size)
        self._lock = threading.Lock()  # never held across a wait
        self._leader: Call | None = None  # only the leader receives, and only it closes the wire
        self._followers: dict[Call, Any] = {}  # with the locks on which they sleep
        self._unsent = bytearray()
        self._heard_at = time.monotonic()

    @property
    def pending(self) -> int:
        """How many calls wait for their reply."""
        return self._calls.pending

    def call(self, method: str, params: Iterable[Any], deadline_at: float) -> Any:
        """The result of a call. Raises `RemoteError`, `CallTimeout`, `Lost`, `NotSent` or `ProtocolError`."""
        self._make_sure_of_the_server()
        call = Call(deadline_at)
        try:
            with self._lock:
                self._begin(call, method, params)
                if self._leader is None:
                    self._leader = call
            while call.state is _PENDING:
                if not self._take_turn(call):
                    raise CallTimeout(f"no reply to {method} came in time")
        finally:
            if self._leader is call or call.state is _PENDING:
                self._leave(call)
        return call.outcome()

    def notify(self, method: str, params: Iterable[Any], deadline_at: float) -> None:
        """Return when the kernel has the notification. Raises `CallTimeout` or `NotSent`."""
        self._make_sure_of_the_server()
        with self._lock:
            self._check_open()
            data = self._calls.notify(method, params)
            end = self._calls.queued
            self._hand_over(data)
        if self._unsent:
            self._push_out(end, deadline_at)

    def close(self, reason: str) -> None:
        """End the connection, and every pending call with it."""
        with self._lock:
            ended = self._end(reason)
        self._wake(ended)

    def discard(self) -> None:
        """Close what has ended, unless someone still reads what the server sent before the end."""
        with self._lock:
            ended = [] if self._leader is not None else self._end("the connection has ended")
        self._wake(ended)

    def abandon(self) -> None:
        """In a forked child: let go of the parent's connection without a trace on the wire."""
        self._lock = threading.Lock()  # the old one may be held by a thread that is not in this process
        self.is_open = False
        self._wire.close()
        self._unsent.clear()
        self._wake(self._calls.cut(0, "the process was forked, and the reply goes to its parent"))

    # -- waiting: as the leader, as one who pushes unsent bytes out, or as a follower -------------------------

    def _take_turn(self, call: Call) -> bool:
        """Wait for something to happen; false once the deadline of ``call`` has come."""
        if self._leader is call:
            return self._lead(call.deadline_at)
        waker = None
        with self._lock:
            if call.is_over:
                return True
            if self._leader is None:
                self._leader = call
                return True
            if not self._unsent:
                waker = self._followers[call] = threading.Lock()
                waker.acquire()
        return self._push(call.deadline_at) if waker is None else _sleep(waker, call.deadline_at)

    def _lead(self, deadline_at: float) -> bool:
        try:
            data = self._push_and_receive(deadline_at) if self._unsent else self._wire.receive(deadline_at)
        except OSError as error:
            self.close(f"the connection failed: {error}")
            return True
        if data is None:
            return time.monotonic() < deadline_at
        with self._lock:
            ended = self._take_in(data)
        self._wake(ended)
        return True

    def _push_and_receive(self, deadline_at: float) -> bytes | None:
        self._wire.wait(select.POLLIN | select.POLLOUT, deadline_at)
        with self._lock:
            self._flush()
        return self._wire.receive_now()

    def _push(self, deadline_at: float) -> bool:
        now = time.monotonic()
        self._wire.wait(select.POLLOUT, min(deadline_at, now + _PUSH_SECONDS))
        with self._lock:
            self._flush()
        return now < deadline_at

    def _push_out(self, end: int, deadline_at: float) -> None:
        """Wait until the stream is handed over up to ``end``."""
        me = Call(deadline_at)
        try:
            while self.is_open and self._calls.queued - len(self._unsent) < end:
                if not self._take_turn(me):
                    raise CallTimeout("the server did not read the notification in time")
        finally:
            self._leave(me)
        if self._calls.queued - len(self._unsent) < end:
            raise NotSent("the connection ended before the notification was sent")

    def _leave(self, call: Call) -> None:
        """Stop waiting, and give up the lead to one of those who still wait."""
        with self._lock:
            if call.state is _PENDING:
                self._calls.forget(call)
            self._followers.pop(call, None)
            if self._leader is not call:
                return
            self._leader = None
            if not self.is_open:
                self._wire.close()
            elif self._followers:
                self._leader, waker = self._followers.popitem()
                waker.release()

    # -- what happens to the connection; all of it under the lock ---------------------------------------------

    def _begin(self, call: Call, method: str, params: Iterable[Any]) -> None:
        self._check_open()
        data = self._calls.begin(call, method, params)
        try:
            self._hand_over(data)
        except NotSent:
            self._calls.withdraw(call)
            raise

    def _check_open(self) -> None:
        if not self.is_open:
            raise NotSent("the connection has ended; the call did not run")

    def _hand_over(self, data: bytes) -> None:
        """Send what the kernel takes at once, and keep the rest. Raises `NotSent` if it takes nothing any more."""
        if self._unsent:
            self._unsent += data
            return
        try:
            sent = self._wire.send(data)
        except OSError as error:
            self._stop_sending()
            raise NotSent(f"the connection failed: {error}; the call did not run") from None
        if sent != len(data):
            self._unsent += memoryview(data)[sent:]

    def _flush(self) -> None:
        try:
            while self._unsent:
                sent = self._wire.send(self._unsent)
                if not sent:
                    return
                del self._unsent[:sent]
        except OSError:
            self._stop_sending()

    def _stop_sending(self) -> None:
        """Take no more calls; whoever leads still receives what the server had sent, then its end."""
        self.is_open = False
        self._wire.shutdown()

    def _take_in(self, data: bytes) -> list[Call]:
        """The calls that are over now that ``data`` came; b"" is the end of the stream."""
        if not data:
            return self._end("the server closed the connection")
        self._heard_at = time.monotonic()
        ended = self._calls.receive(data)
        if self._calls.fault is not None:
            ended += self._end(f"the server is at fault: {self._calls.fault}")
        return ended

    def _end(self, reason: str) -> list[Call]:
        self.is_open = False
        ended = self._calls.cut(len(self._unsent), reason)
        self._unsent.clear()
        if self._leader is None:
            self._wire.close()
        else:
            self._wire.shutdown()
        return ended

    # -- without the lock -------------------------------------------------------------------------------------

    def _wake(self, ended: list[Call]) -> None:
        for call in ended:
            waker = self._followers.pop(call, None)
            if waker is not None:
                waker.release()
            elif call.on_end is not None:
                call.on_end(call)

    def _make_sure_of_the_server(self) -> None:
        """After a silence find out before sending, rather than after, that the server went away."""
        if self._leader is not None or time.monotonic() - self._heard_at <= _IDLE_SECONDS:
            return
        ended: list[Call] = []
        with self._lock:
            if self._leader is None and self.is_open:
                try:
                    data = self._wire.receive_now()
                    ended = [] if data is None else self._take_in(data)
                except OSError as error:
                    ended = self._end(f"the connection failed: {error}")
        self._wake(ended)


def _sleep(waker: Any, deadline_at: float) -> bool:
    """Sleep until ``waker`` is released; false once the deadline has come."""
    left = deadline_at - time.monotonic()
    if left > threading.TIMEOUT_MAX:
        return bool(waker.acquire())
    return bool(waker.acquire(timeout=left)) if left > 0 else bool(waker.acquire(False))
