"""One connection on asyncio: from bytes to ended calls, with their deadlines, and its own end.

The counterpart of `rpccluster.client.sync.connection`, over the same core. Everything runs in the loop's thread. It
does not reconnect.

Replies that come together wake their tasks in one turn of the loop, and most of these call again. So what they send is
gathered, and leaves in one write behind them, in the same turn: `_gather`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable
from typing import Any

from rpccluster.client.aio.dialing import within
from rpccluster.client.aio.quiet import keep_from_sigpipe
from rpccluster.client.core.exchange.call import Call
from rpccluster.client.core.exchange.calls import Calls
from rpccluster.client.core.exchange.outgoing import BOUNDS
from rpccluster.errors import CallTimeout, NotSent

__all__ = ["Connection"]

_IDLE_SECONDS = 0.005  # so often, at most, sending begins with a look whether the server is still there
_CLOSE_SECONDS = 1.0
_MOST_ANSWERS_BYTES = 65_536  # that a server may leave unread before it gets no more of them
_GATHER_SECONDS = 0.0005  # after the first reply: then the tasks take long, and each call leaves at once
_GATHER_BYTES = 16_384  # a longer message leaves at once
_MOST_GATHERED = 8  # calls in one write: the server is to work meanwhile

# Once a connection is lost, its transport does not tell what it still held. So a call that was given to it may have
# run; one that still waits for its turn to be written has not begun, and certainly did not.
_GIVEN = 0
_ALL_GIVEN = 1
_GATHERED = 1


class Connection(asyncio.Protocol):
    """The asyncio protocol of one connection. It takes no more calls once not ``is_open``."""

    def __init__(self, max_message_size: int, max_depth: int = BOUNDS.max_depth) -> None:
        self.is_open = False
        self.loop = asyncio.get_running_loop()
        self._calls = Calls(max_message_size, answer=self._answer, max_depth=max_depth)
        self._transport: Any = None
        self._may_write = asyncio.Event()
        self._is_lost = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._is_asked = False
        self._look_at = 0.0
        self._gather_until = 0.0  # loop time
        self._gathered: list[bytes] = []
        self._gathered_calls: list[Call] = []

    @property
    def pending(self) -> int:
        """The number of calls that wait for their reply."""
        return self._calls.pending

    async def call(self, method: str, params: Iterable[Any], deadline_at: float) -> Any:
        """Make a call, return its result. Raises `RemoteError`, `CallTimeout`, `Lost`, `NotSent`, `ProtocolError`."""
        now = self.loop.time()
        if now > self._look_at or not self._may_write.is_set():
            await self._get_ready(deadline_at)
            now = self.loop.time()
        future = self.loop.create_future()
        call = Call(deadline_at, future)
        data = self._calls.request(method, params, deadline_at - now)
        if now < self._gather_until and len(data) < _GATHER_BYTES:
            self._refuse_ended()
            self._gathered.append(data)
            self._gathered_calls.append(call)
            self._begin(call, _GATHERED)
            if len(self._gathered) >= _MOST_GATHERED:
                self._send_gathered()
        else:
            self._write(data)
            self._begin(call)
        if not self._is_asked and deadline_at != math.inf:
            self._ask(deadline_at - now)
        try:
            return await future
        except asyncio.CancelledError:
            self._forget(call)
            self._close_if_over()
            raise

    async def call_all(self, calls: list[Call], bodies: list[bytes], deadline_at: float) -> None:
        """Send all calls in one write and wait for them; each holds its own outcome. Raises `NotSent`."""
        await self._get_ready(deadline_at)
        over = self.loop.create_future()
        countdown = _Countdown(len(calls), over)
        seconds = deadline_at - self.loop.time()
        for call in calls:
            call.waiter = countdown
        data, _ = self._calls.begin_all(calls, bodies, _GIVEN, seconds)
        for call in calls:
            self._watch(call)
        try:
            self._write(data)
            self._ask(seconds)
            await over
        except BaseException as error:
            for call in calls:
                self._calls.withdraw(call) if isinstance(error, NotSent) else self._forget(call)
            self._close_if_over()
            raise

    async def notify(self, method: str, params: Iterable[Any], deadline_at: float) -> None:
        """Give a notification to the transport. Raises `CallTimeout` or `NotSent`."""
        await self._get_ready(deadline_at)
        self._write(self._calls.notify(method, params))

    def set_aside(self) -> None:
        """Take no more calls, and close when the last pending one has ended."""
        self.is_open = False
        self._close_if_over()

    async def close(self, reason: str) -> None:
        """End every pending call, and return when the connection is closed."""
        self._end(reason)
        self._transport.close()
        try:
            await within(self._is_lost.wait(), _CLOSE_SECONDS)
        except asyncio.TimeoutError:
            self._transport.abort()

    # -- sending ------------------------------------------------------------------------------------------------

    async def _get_ready(self, deadline_at: float) -> None:
        """Wait until the transport takes more, and find out before sending whether the server has gone."""
        now = self.loop.time()
        if now > self._look_at:
            self._look_at = now + _IDLE_SECONDS
            await asyncio.sleep(0)  # the loop polls; what it finds it runs after this one,
            await asyncio.sleep(0)  # and before this one
        if not self._may_write.is_set():
            try:
                left = deadline_at - self.loop.time()
                await within(self._may_write.wait(), None if left == math.inf else left)
            except asyncio.TimeoutError:
                raise CallTimeout("the server did not read in time; the call was not sent") from None

    def _refuse_ended(self) -> None:
        if not self.is_open or self._transport.is_closing():
            self.is_open = False  # at once: the loop tells later
            raise self._calls.not_sent("the connection has ended")

    def _gather(self) -> None:
        """Gather the calls of the tasks that have just been woken, which the loop runs before `_send_gathered`."""
        self._gather_until = self.loop.time() + _GATHER_SECONDS
        self.loop.call_soon(self._end_gathering)

    def _end_gathering(self) -> None:
        self._gather_until = 0.0
        self._send_gathered()

    def _send_gathered(self) -> None:
        gathered, calls = self._gathered, self._gathered_calls
        if gathered and not self._transport.is_closing():  # else the loop tells of its end, as `_end` does
            self._drop_gathered()
            self._transport.write(b"".join(gathered))
            if self._transport.is_closing():  # the first attempt to send has failed
                self.is_open = False
            else:
                for call in calls:
                    call.starts_at = _GIVEN

    def _drop_gathered(self) -> None:
        self._gathered, self._gathered_calls = [], []

    def _write(self, data: bytes) -> None:
        self._refuse_ended()
        self._send_gathered()
        self._transport.write(data)
        if self._transport.is_closing():  # the first attempt to send has failed
            self.is_open = False
            raise NotSent("the connection failed; the call did not run")

    def _answer(self, data: bytes) -> None:
        """Send an answer to the server's own request, unless the server does not read."""
        if not self._transport.is_closing() and self._transport.get_write_buffer_size() < _MOST_ANSWERS_BYTES:
            self._send_gathered()
            self._transport.write(data)

    def _ask(self, seconds: float) -> None:
        """Ask the server, along with its first call that has ``seconds``, whether it ends calls at their deadline."""
        question = self._calls.question(seconds)
        if question:
            self._is_asked = True
            self._send_gathered()
            self._transport.write(question)

    def _forget(self, call: Call) -> None:
        """Drop the reply of ``call`` when it comes, and tell the server that nobody waits for it."""
        if self._calls.forget(call):
            self._cancel(call)

    def _cancel(self, call: Call) -> None:
        data = self._calls.cancellation(call)
        if data and self.is_open:
            self._answer(data)

    def _begin(self, call: Call, starts_at: int = _GIVEN) -> None:
        self._calls.begin(call, self._calls.msgid, starts_at)
        self._watch(call)

    def _watch(self, call: Call) -> None:
        if call.deadline_at != math.inf:
            self._calls.watch(call)
            if self._timer is None or call.deadline_at < self._timer.when():
                self._set_timer()

    # -- deadlines ----------------------------------------------------------------------------------------------

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        at = self._calls.next_deadline_at()
        self._timer = None if at is None or at == math.inf else self.loop.call_at(at, self._expire)

    def _expire(self) -> None:
        ended = self._calls.expire(self.loop.time())
        for call in ended:
            self._cancel(call)
        self._settle(ended)
        self._close_if_over()
        self._set_timer()

    # -- what the loop tells ------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note the transport, as `asyncio.Protocol` asks."""
        keep_from_sigpipe(transport)
        self._transport = transport
        self.is_open = True
        self._may_write.set()
        self._transport.write(self._calls.closing_request())

    def data_received(self, data: bytes) -> None:
        """Take what has come, as `asyncio.Protocol` asks."""
        ended = self._calls.receive(data)
        self._settle(ended)
        if len(ended) > 1:
            self._gather()
        if self._calls.fault is not None:
            self._end(f"{self._calls.fault} from the server")
            self._transport.abort()
        elif self._calls.is_to_be_cut:
            self._drop_gathered()  # the server reads no more
            self._settle(self._calls.cut_unread("the server closes the connection"))
            self.set_aside()
        elif not self.is_open:
            self._close_if_over()

    def eof_received(self) -> None:
        """Note that the server sends no more, as `asyncio.Protocol` asks."""
        self._end("the server closed the connection")

    def connection_lost(self, error: Exception | None) -> None:
        """End everything, as `asyncio.Protocol` asks."""
        self._end("the server closed the connection" if error is None else f"the connection failed: {error}")
        self._is_lost.set()

    def pause_writing(self) -> None:
        """Stop sending, as `asyncio.Protocol` asks."""
        self._may_write.clear()

    def resume_writing(self) -> None:
        """Send again, as `asyncio.Protocol` asks."""
        self._may_write.set()

    # -- what becomes of the calls ------------------------------------------------------------------------------

    def _end(self, reason: str) -> None:
        self.is_open = False
        self._drop_gathered()  # their calls certainly have not begun
        self._settle(self._calls.cut(_ALL_GIVEN, reason))
        self._may_write.set()  # the calls that wait for it are to find out
        if self._timer is not None:
            self._timer.cancel()

    def _close_if_over(self) -> None:
        if not self.is_open and not self._calls.pending:
            self._transport.close()

    def _settle(self, ended: list[Call]) -> None:
        for call in ended:
            future = call.waiter
            if future.done():
                continue  # cancelled, and about to forget the call
            if call.error is None:
                future.set_result(call.value)
            else:
                future.set_exception(call.error)


class _Countdown:
    """Stands for the future of each call of a batch, and ends the batch's future with the last call."""

    def __init__(self, count: int, over: asyncio.Future[None]) -> None:
        self._left = count
        self._over = over

    def done(self) -> bool:
        return self._over.done()

    def set_result(self, _: Any) -> None:
        self._left -= 1
        if not self._left:
            self._over.set_result(None)

    set_exception = set_result
