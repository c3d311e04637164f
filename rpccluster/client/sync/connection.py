"""The ways to call over one connection: and wait, many at once, by a future, and without a reply.

`rpccluster.client.sync.stream` decides who reads meanwhile; the client reconnects.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterable
from time import monotonic
from typing import Any

from rpccluster.client.core.exchange.call import Call, CallState
from rpccluster.client.sync.stream import Stream
from rpccluster.client.sync.wire import TICK_SECONDS
from rpccluster.client.threads.reader import Reader
from rpccluster.errors import CallTimeout, Lost, NotSent

__all__ = ["Connection"]

_PENDING = CallState.PENDING
_NEVER = math.inf
_HANDED_OVER = -1  # where a request has begun that the kernel has taken whole


class Connection(Stream):
    """One connection. Any thread may call every method."""

    def call(
        self, method: str, params: Iterable[Any], now: float, deadline_at: float, is_idempotent: bool = False
    ) -> Any:
        """Make a call and return its result. Raises `RemoteError`, `CallTimeout`, `Lost`, `NotSent`, `ProtocolError`.

        One that ``is_idempotent`` may find out by itself that the server has gone, since it is made again then.

        Nearly every call comes this way, so it is flat for speed. A thread that is alone and has time leads at once,
        and does not even register its call: only the leader receives, so it can register the call later, if something
        else comes first.
        """
        if self._is_mine() or self._leader is not None:
            self._refuse_nested()
        if now > self._look_at and not is_idempotent:
            self._make_sure_of_the_server()
        call = message = data = None
        msgid = -1
        try:
            self._lock.acquire()  # `with` would cost a call 50 ns more
            data = self._calls.request(method, params, deadline_at - now)
            if not self.is_open:
                self._refuse_ended()
            self._send(data)
            msgid = self._calls.msgid
            if not self._is_asked and deadline_at != _NEVER:
                self._ask(deadline_at - now)
            if self._leader is None and not self._unsent and deadline_at - now >= TICK_SECONDS:
                self._leading = threading.get_ident()
                self._leader = call = self._lone
            else:
                call = Call(deadline_at)
                self._calls.begin(call, msgid, self._out.start_of(data))
            self._lock.release()
            if call is self._lone:
                found = self._receive_reply(msgid) if self._is_between else self._wire.receive_soon()
                message = found if isinstance(found, list) else self._read_alone(msgid, found)
                if message is None:
                    call = self._begin_late(Call(deadline_at), msgid)
                    self._share(call, self._take_in(None))
                else:
                    self._leader = None
                    if self._followers or self.has_ended:
                        self._pass_the_lead_on()
            if message is None:
                self._wait(call)
        except BaseException as error:
            if self._is_mine():
                self._lock.release()
            if data is not None:
                self._give_up(call, error, msgid)
            raise
        if message is None:
            return call.result()
        if message[2] is None:
            return message[3]
        raise self._calls.to_error(message[2])

    def _read_alone(self, msgid: int, data: bytes | None) -> list[Any] | None:
        """Return the reply to the request ``msgid``, if ``data`` is it, or its end."""
        if data is None:
            return None
        message = self._calls.reply(msgid, data)
        self._is_between = self._calls.is_between
        return message

    def _begin_late(self, call: Call, msgid: int) -> Call:
        """Register the call of a thread that led alone, and whose request was handed over whole."""
        with self._lock:
            self._calls.begin(call, msgid, self._out.handed_over - 1)
            self._leader = call
            if self.has_ended:  # meanwhile; the calls that were put down by then have been cut
                self._calls.cut(self._out.handed_over, "the connection was closed")
        return call

    def _give_up(self, call: Call | None, error: BaseException, msgid: int = -1) -> None:
        """Stop waiting because of ``error``.

        If the error came from outside while this thread led or sent (an exception of a signal handler), bytes may have
        been lost between the kernel and here, so the connection ends. A greenlet is interrupted only while it waits.
        """
        is_orderly = isinstance(error, (CallTimeout, NotSent)) or self._wire.is_cooperative
        if not is_orderly and (call is None or call is self._lone or call is self._leader or self._unsent):
            self.close("a call was interrupted")
        elif call is self._lone:
            self._leave(self._begin_late(Call(), msgid))
        elif call is not None:
            self._leave(call)

    def call_all(self, calls: list[Call], bodies: list[bytes]) -> None:
        """Send all calls in one write and wait for them; each holds its own outcome. Raises `NotSent`.

        ``bodies`` are the methods and params of the ``calls``, packed by `body_packer`.
        """
        self._refuse_nested()
        self._make_sure_of_the_server()
        call = None
        try:
            with self._lock:
                self._begin_all(calls, bodies)
            for call in calls:
                try:
                    if call.state is _PENDING:
                        self._wait(call)
                except CallTimeout as error:
                    self._leave(call)
                    call.error = error
        except BaseException as error:
            self._give_up(call, error)
            for call in calls:
                self._leave(call)
            raise

    def _begin_all(self, calls: list[Call], bodies: list[bytes]) -> None:
        seconds = calls[0].deadline_at - monotonic() if calls else math.inf
        data, ends = self._calls.begin_all(calls, bodies, _HANDED_OVER, seconds)
        try:
            self._hand_over(data)
        except NotSent:
            for call in calls:
                self._calls.withdraw(call)
            raise
        if self._unsent:
            start = self._out.start_of(data)
            for call, begins in zip(calls, [0, *ends]):
                call.starts_at = start + begins
        self._ask(seconds)

    def _wait(self, call: Call) -> None:
        while call.state is _PENDING:
            if not (self._lead(call) if self._leader is call else self._follow(call)):
                raise CallTimeout("no reply came within the call's timeout")
        if self._leader is call:
            self._leave(call)

    def start(self, call: Call, method: str, params: Iterable[Any], body: bytes | None = None) -> None:
        """Send a call that ends at its deadline at the latest, and tells its ``waiter`` then. Raises `NotSent`.

        The bytes are the waiter's ``request``. ``body`` is its method and params, if they were packed before.
        """
        if self._is_mine():
            self._refuse_nested()
        self._make_sure_of_the_server()
        with self._lock:
            calls, left = self._calls, call.deadline_at - monotonic()
            data = calls.request(method, params, left) if body is None else calls.packed_request(body, left)
            msgid = self._calls.msgid
        call.waiter.request = data
        try:
            with self._lock:
                reader = self._hired_reader()  # before anything relies on it
                self._hand_over(data)
                self._calls.begin(call, msgid, self._out.start_of(data))
                self._calls.watch(call)
                self._started.add(call)
                self._ask(left)
                if call.deadline_at <= reader.me.deadline_at or self._unsent:
                    self._call_the_reader(reader)
        except BaseException as error:
            self._give_up(None, error)
            raise

    def _hired_reader(self) -> Reader:
        if self._reader is None:
            try:
                self._reader = Reader(self)
            except (RuntimeError, OSError, MemoryError) as error:
                raise NotSent(f"no thread can be had to wait for the reply: {error}; the call did not run") from None
        return self._reader

    def await_closing(self) -> None:
        """Ask the server, once, to say when it stops reading. Raises `NotSent`."""
        with self._lock:
            self._hand_over(self._calls.closing_request())

    def forget(self, call: Call) -> None:
        """Drop the reply of ``call`` when it comes, since nobody waits for it."""
        with self._lock if self.is_here else contextlib.nullcontext():  # which saves a msgid, and nothing else
            if self._calls.forget(call):
                self._started.discard(call)
                if self.is_here:
                    self._cancel(call)

    def notify(self, method: str, params: Iterable[Any], deadline_at: float) -> None:
        """Give a notification to the kernel. Raises `CallTimeout`, `Lost` or `NotSent`."""
        if self._is_mine():
            self._refuse_nested()
        me = Call(deadline_at)
        self._make_sure_of_the_server()
        with self._lock:
            data = self._calls.notify(method, params)
        try:
            with self._lock:
                self._hand_over(data)
                start = self._out.start_of(data)
            if self._unsent:
                self._push_out(me, start, start + len(data))
        except BaseException as error:
            self._give_up(me, error)
            raise

    def _push_out(self, me: Call, start: int, end: int) -> None:
        """Wait until the kept bytes from ``start`` to ``end`` are handed over."""
        while self._out.handed_over < end and not self.has_ended:
            if not (self._lead(me) if self._leader is me else self._follow(me)):
                raise CallTimeout("the server did not read the notification in time")
        self._leave(me)
        if self._out.handed_over <= start:
            raise NotSent("the connection ended before the notification was sent")
        if self._out.handed_over < end:
            raise Lost("the connection ended while the notification was being sent")

    # -- for the reader ----------------------------------------------------------------------------------------

    def attend(self, me: Call) -> bool:
        """Tell of what has ended, end the started calls that are due, and take a turn for the others; false if none."""
        self._tell(me)
        with self._lock:
            ended = self._calls.expire(monotonic())
            for call in ended:
                self._cancel(call)
            next_at = self._calls.next_deadline_at()
            me.deadline_at = math.inf if next_at is None else next_at
        if ended:
            self._wake(ended, me)
            return True
        if next_at is None:
            self._leave(me)
            return False
        self._lead(me) if self._leader is me else self._follow(me)
        return True

    def _tell(self, me: Call) -> None:
        """Tell the waiters, without the lead: that may wait for somebody who waits for this connection.

        So does a callback that waits for a call of another thread, and a thread with a future's lock whose signal
        handler calls.
        """
        if self._started.has_untold:
            if self._leader is me or me in self._followers:
                self._leave(me)
            self._started.tell_all()

    def tell_the_rest(self) -> None:
        """See `rpccluster.client.threads.reader.Attended`."""
        with self._lock:
            leftovers = self._started.leftovers() if self._calls.next_deadline_at() is None else []
        for call in leftovers:
            self._started.tell(call)

    def dismiss(self, reader: Reader) -> bool:
        """Let the reader end, unless there are started calls again."""
        with self._lock:
            if self._reader is not reader:  # its start was interrupted
                return True
            if self._started:
                return False
            self._reader = None
            return True
