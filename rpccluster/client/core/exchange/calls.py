"""The calls of one connection: msgids, deadlines, and which reply answers which call. Sans-I/O; both faces use it.

Knows no socket, no lock and no clock: it gets bytes and times, and returns bytes and ended calls.
`rpccluster.client.core.exchange.call` has the states of a call; `Replies` reads what comes.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Iterable
from typing import Any

from rpccluster.client.core.exchange.bounded import Bounded, around, bound, bound_body, may_be_bound, trace_here
from rpccluster.client.core.exchange.call import Call, CallState
from rpccluster.client.core.exchange.dialect import DIALECT, Dialect
from rpccluster.client.core.exchange.outgoing import BOUNDS, check_outgoing, not_a_str, unchecked_size
from rpccluster.client.core.exchange.replies import Replies
from rpccluster.errors import AuthenticationFailed, CallTimeout, Lost, NotSent, ProtocolError
from rpccluster.protocol.bounded import RESERVED
from rpccluster.protocol.challenge import REFUSED
from rpccluster.protocol.closing import closing_request, due_of
from rpccluster.protocol.codec import pack_response
from rpccluster.protocol.messages import NOTIFY, REQUEST, RESPONSE, Request, Unreadable, to_message
from rpccluster.protocol.outline import Bounds

__all__ = ["Calls"]

_PACKED_HEAD = b"\x94\x00\xce"  # an array of 4, REQUEST, and a uint 32 follows: the MessagePack specification
_MSGIDS = 2**32  # "32-bit unsigned integer": spec, "Request Message"
_MOST_COMMON_DEPTH = 400  # beyond which msgpack packs
_MOST_NAME = 1000  # characters of a method that a server asks for, in the answer

_NEW = CallState.NEW
_PENDING = CallState.PENDING
_ANSWERED = CallState.ANSWERED


class Calls:
    """The calls of one connection, from its first byte to its last.

    A face that sends in one thread and receives in another passes ``let_begin``, which waits for calls that are handed
    over but not begun. ``answer`` sends the error to a server's own request. ``max_depth`` limits requests. ``msgids``
    is the number of different msgids; tests use few.
    """

    def __init__(
        self,
        max_message_size: int,
        dialect: Dialect = DIALECT,
        let_begin: Callable[[], None] = lambda: None,
        msgids: int = _MSGIDS,
        answer: Callable[[bytes], None] = lambda data: None,
        max_depth: int = BOUNDS.max_depth,
    ) -> None:
        self._fault: ProtocolError | None = None
        self.due: frozenset[int] | None = None  # the msgids the server will still answer, once it reads no more
        self.is_to_be_cut = False  # `due` has come; `cut_unread` is yet to be called
        self._closing_msgid: int | None = None
        self._is_refused = False  # the server wants a key to be proved first
        self.dropped = 0  # replies to no pending call
        self._table: dict[int, Call] = {}  # pending calls by msgid: the one that takes a call out of it ends it
        self._abandoned: set[int] = set()
        self._deadlines: list[tuple[float, int, Call]] = []  # heap of watched calls, ended ones among them
        self._watched = 0
        self._let_begin = let_begin
        self._msgids = msgids
        self.msgid = -1
        self._next_msgid = itertools.chain(range(msgids), iter(self._free_msgid, -1)).__next__
        self.to_error = dialect.to_error
        self._answer = answer
        self._pack = dialect.packer().pack
        self._wire = dialect.wire
        self._bounded = Bounded()
        self._asks = dialect.is_bounded
        self._bounds = Bounds(max_message_size, max_depth)
        self._unchecked_size = unchecked_size(self._bounds)
        most_depth = min(max_depth, _MOST_COMMON_DEPTH)
        self._limits = max_message_size, most_depth - 1  # bytes, and levels of the params
        self._bound_limits = max_message_size, most_depth - 2
        self._replies = Replies(max_message_size, dialect)
        #: See `Replies.reply`: None is followed by ``receive(b"")``.
        self.reply = self._replies.reply
        self._read = self._replies.read

    @property
    def fault(self) -> ProtocolError | None:
        """The fault that has ended the stream: what came is no reply; None if there is none."""
        return self._fault or self._replies.fault

    @property
    def is_between(self) -> bool:
        """See `Replies.is_between`: then whoever has received the whole reply to his request needs no `reply`."""
        return self._replies.is_between

    @property
    def pending(self) -> int:
        """The number of calls that wait for their reply."""
        return len(self._table)

    def request(self, method: str, params: Iterable[Any], seconds: float = math.inf) -> bytes:
        """Pack a request, the next one of the stream; `msgid` is its msgid, with which `begin` registers a call.

        The server ends it after ``seconds`` if it offers that; `question` asks it.

        Raises msgpack's error for a value that cannot be packed, ValueError for a request that is too large or nested
        too deep, and TypeError for a method that is no string.
        """
        if type(method) is not str:
            raise not_a_str(method)
        self.msgid = msgid = self._next_msgid()
        if self._bounded.is_offered and seconds < math.inf and not method.startswith(RESERVED):
            data = self._bound(msgid, method, params, seconds)
            if data is not None:
                return data
        if self._wire is not None:
            common: bytes | None = self._wire.pack_request(msgid, method, params, None, *self._limits)
            if common is not None:
                return common
        data = self._pack((REQUEST, msgid, method, params))
        if len(data) > self._unchecked_size:
            check_outgoing(len(data), data, params, self._bounds)
        return data

    def _bound(self, msgid: int, method: str, params: Iterable[Any], seconds: float) -> bytes | None:
        """Pack a request that the server ends after ``seconds``; None if it only just fits without that."""
        trace = trace_here()
        if trace is None and self._wire is not None:
            common: bytes | None = self._wire.pack_request(msgid, method, params, seconds, *self._bound_limits)
            if common is not None:
                return common
        data = bound(self._pack, msgid, method, params, seconds, trace)
        if len(data) > self._unchecked_size:
            try:
                check_outgoing(len(data), data, (params,), self._bounds)
            except ValueError:
                return None
        return data

    def begin_all(
        self, calls: list[Call], bodies: list[bytes], starts_at: int, seconds: float
    ) -> tuple[bytes, list[int]]:
        """Make a request of each of ``bodies`` as `packed_request` does, and register the ``calls`` of them.

        Returns the requests, and where each one ends.
        """
        msgids, table, next_msgid = [], self._table, self._next_msgid
        for call in calls:  # as `begin` does it
            self.msgid = call.msgid = msgid = next_msgid()
            call.starts_at = starts_at
            call.error = None
            call.state = _PENDING
            table[msgid] = call
            msgids.append(msgid)
        is_bounded = self._bounded.is_offered and seconds < math.inf
        if self._wire is not None:
            before, behind = around(seconds) if is_bounded else (b"", b"")
            packed: tuple[bytes, list[int]] | None = self._wire.pack_requests(msgids, bodies, before, behind)
            if packed is not None:
                return packed
        requests = [self._request_of(msgid, body, seconds) for msgid, body in zip(msgids, bodies)]
        return b"".join(requests), list(itertools.accumulate(map(len, requests)))

    def packed_request(self, body: bytes, seconds: float = math.inf) -> bytes:
        """Make a request of a method and params that `body_packer` has packed. Raises as `request` does."""
        self.msgid = msgid = self._next_msgid()
        return self._request_of(msgid, body, seconds)

    def _request_of(self, msgid: int, body: bytes, seconds: float) -> bytes:
        if self._bounded.is_offered and may_be_bound(body, seconds):
            body = bound_body(body, seconds)
        return _PACKED_HEAD + msgid.to_bytes(4, "big") + body

    def _free_msgid(self) -> int:
        """Return the next free msgid, once each has been used."""
        for step in range(1, len(self._table) + len(self._abandoned) + 2):
            msgid = (self.msgid + step) % self._msgids
            if msgid not in self._table and msgid not in self._abandoned:
                return msgid
        raise OverflowError(f"all {self._msgids} msgids of the connection are taken by unanswered calls")

    def question(self, seconds: float) -> bytes:
        """Pack the question whether the server offers deadlines; empty if it was asked or a call has no end."""
        if self._bounded.is_asked or not seconds < math.inf or not self._asks:
            return b""
        msgid = self._next_msgid()
        self._abandoned.add(msgid)
        return self._bounded.question(msgid)

    def cancellation(self, call: Call) -> bytes:
        """Pack what tells the server that nobody waits for ``call`` any more; empty if it does not want to know."""
        return self._bounded.cancellation(call.msgid)

    def closing_request(self) -> bytes:
        """Pack the request that asks the server to say when it stops reading; `due` will be its answer. Ask once."""
        self._closing_msgid = self.msgid = msgid = self._next_msgid()
        self._abandoned.add(msgid)
        return closing_request(msgid)

    def begin(self, call: Call, msgid: int, starts_at: int) -> None:
        """Register ``call`` as the call of the request ``msgid``; `cut` uses where the stream ended."""
        call.msgid = msgid
        call.starts_at = starts_at
        call.error = None
        call.state = _PENDING
        self._table[msgid] = call

    def withdraw(self, call: Call) -> None:
        """Undo `begin` of a call whose bytes were not, and will not be, handed over."""
        if self._table.pop(call.msgid, None) is not None:
            call.state = _NEW

    def notify(self, method: str, params: Iterable[Any]) -> bytes:
        """Pack a notification, the next message of the stream. Raises as `request` does."""
        if type(method) is not str:
            raise not_a_str(method)
        data = self._pack((NOTIFY, method, params))
        if len(data) > self._unchecked_size:
            check_outgoing(len(data), data, params, self._bounds)
        return data

    def receive(self, data: bytes) -> list[Call]:
        """Return the calls that ``data`` answers, in order. If its bytes are no replies, `fault` says what they are."""
        ended: list[Call] = []
        if data:
            data = self._replies.take_common(data, self._table, ended, _ANSWERED)
            if not data:
                return ended
        try:
            self._read(data, self._match, ended)
        except ProtocolError as error:
            self._fault = error
        return ended

    def _match(self, message: Any, ended: list[Call]) -> None:
        if type(message) is not list or len(message) != 4 or message[0] != RESPONSE or type(message[1]) is not int:
            asked = to_message(message)  # raises for what no server may send
            self.dropped += 1  # a server may send requests and notifications; they are not served here
            if isinstance(asked, Request):
                self._answer(pack_response(asked.msgid, f"'{asked.method[:_MOST_NAME]}' method not found", None))
            return
        _, msgid, error, value = message
        call = self._table.pop(msgid, None)
        if call is None:
            call = self._claim_late(msgid, error, value)
            if call is None:
                return
        if error is not None:
            call.error = error.error if type(error) is Unreadable else self.to_error(error)
        call.value = value
        call.state = _ANSWERED
        ended.append(call)

    def _claim_late(self, msgid: int, error: Any, value: Any) -> Call | None:
        """Return the call of a reply that came before its call was registered; without one the reply is dropped.

        The reply to `closing_request` is remembered.
        """
        if msgid == self._closing_msgid:
            self._abandoned.discard(msgid)
            self._closing_msgid = None
            if error == REFUSED:
                self._is_refused = True
                raise ProtocolError(REFUSED)
            self.due = due_of(error, value)
            self.is_to_be_cut = self.due is not None
            return None
        if msgid == self._bounded.msgid:
            self._abandoned.discard(msgid)
            self._bounded.note_answer(error, value)
            return None
        self._let_begin()
        call = self._table.pop(msgid, None)
        if call is None:
            self.dropped += 1
            self._abandoned.discard(msgid)
        return call

    def watch(self, call: Call) -> None:
        """Let `expire` end ``call`` at its deadline."""
        if len(self._deadlines) > 64 + 2 * len(self._table):  # most have ended: forget them
            self._deadlines = [entry for entry in self._deadlines if entry[2].state is _PENDING]
            heapq.heapify(self._deadlines)
        self._watched += 1
        heapq.heappush(self._deadlines, (call.deadline_at, self._watched, call))

    def next_deadline_at(self) -> float | None:
        """Return when `expire` must be called; None means never."""
        while self._deadlines and self._deadlines[0][2].state is not _PENDING:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def expire(self, now: float) -> list[Call]:
        """End the watched calls whose deadline has come."""
        ended = []
        while self._deadlines and self._deadlines[0][0] <= now:
            call = heapq.heappop(self._deadlines)[2]
            if self.forget(call):
                call.error = CallTimeout("no reply came within the call's timeout")
                ended.append(call)
        return ended

    def forget(self, call: Call) -> bool:
        """Drop the reply of ``call`` when it comes. Returns False if the call had ended before."""
        if call.state is not _PENDING or self._table.get(call.msgid) is not call:  # its msgid may be another's by now
            return False
        if self._table.pop(call.msgid, None) is None:  # another thread has taken it out meanwhile
            return False
        self._abandoned.add(call.msgid)
        call.state = CallState.ABANDONED
        return True

    def cut_unread(self, reason: str) -> list[Call]:
        """End every call that is not `due`, since the server has not read it. No call may begin any more."""
        assert self.due is not None
        self.is_to_be_cut = False
        ended = [call for msgid, call in list(self._table.items()) if msgid not in self.due]
        for call in ended:
            del self._table[call.msgid]
            call.error = NotSent(f"{reason}; the call did not run")
            call.state = CallState.NOT_SENT
        return ended

    def not_sent(self, reason: str) -> NotSent | AuthenticationFailed:
        """Make the error of a call that certainly did not run, for ``reason`` or since a key is to be proved first."""
        if self._is_refused:
            return AuthenticationFailed(REFUSED)
        return NotSent(f"{reason}; the call did not run")

    def cut(self, at: int, reason: str) -> list[Call]:
        """End every call with the stream; only calls that start before ``at`` were handed over, at least in part."""
        ended = []
        while self._table:
            _, call = self._table.popitem()
            if call.starts_at >= at or self._is_refused:
                call.error = self.not_sent(reason)
                call.state = CallState.NOT_SENT
            else:
                call.error = ProtocolError(reason) if self.fault else Lost(f"{reason}; the call may have run")
                call.state = CallState.LOST
            ended.append(call)
        return ended
