"""The calls of one connection: msgids, deadlines, and which reply answers which call. Sans-I/O; both faces use it.

Owns the msgids and the decoder. Knows no socket, no lock and no clock: bytes and times are handed in, bytes and
ended calls are handed back. A call's states, and the events that end it:

    NEW     ── begin() ───────────────────────────────────→ PENDING
    PENDING ── a reply with its msgid ────────────────────→ ANSWERED    result, or the remote error
            ── expire(), forget() ────────────────────────→ ABANDONED   its msgid stays taken until the late reply came
            ── cut(), its first byte was handed over ─────→ LOST        it may have run
            ── cut(), it was not ────────────────────────→ NOT_SENT    it certainly did not run
            ── cut_unread(), the server has not read it ──→ NOT_SENT    likewise
"""

from __future__ import annotations

import enum
import heapq
import itertools
import math
from collections.abc import Callable, Iterable
from typing import Any

import msgpack

from rpccluster.client.core.exchange.dialect import DIALECT, Dialect
from rpccluster.client.core.exchange.outgoing import BOUNDS, HEAD_BYTES, check_outgoing, unchecked_size
from rpccluster.client.core.exchange.rescue import Rescue
from rpccluster.errors import CallTimeout, Lost, NotSent, ProtocolError
from rpccluster.protocol.closing import closing_request, due_of
from rpccluster.protocol.codec import DECODE_ERRORS, pack_response
from rpccluster.protocol.messages import NOTIFY, REQUEST, RESPONSE, Request, Unreadable, to_message
from rpccluster.protocol.outline import Bounds

__all__ = ["Call", "CallState", "Calls", "body_of", "body_packer"]

_PACKED_HEAD = b"\x94\x00\xce"  # an array of 4, REQUEST, and a uint 32 follows: the MessagePack specification
_MSGID_BYTES = {0xCC: 2, 0xCD: 3, 0xCE: 5}  # of one above 127, by its first byte
_MSGIDS = 2**32  # "32-bit unsigned integer": spec, "Request Message"
_MOST_NAME = 1000  # characters of a method that a server asks for, in the answer


class CallState(enum.Enum):
    """Where a call stands; the table of what ends it is in the module's docstring."""

    NEW = "new"
    PENDING = "pending"
    ANSWERED = "answered"
    ABANDONED = "abandoned"
    LOST = "lost"
    NOT_SENT = "not sent"


_NEW = CallState.NEW
_PENDING = CallState.PENDING
_ANSWERED = CallState.ANSWERED


class Call:
    """One call. ``deadline_at`` is on the face's clock; ``waiter`` is what the face wakes when it has ended."""

    __slots__ = ("deadline_at", "error", "msgid", "starts_at", "state", "value", "waiter")

    def __init__(self, deadline_at: float = math.inf, waiter: Any = None) -> None:
        self.deadline_at = deadline_at
        self.waiter = waiter
        self.state = _NEW
        self.msgid = -1
        self.starts_at = 0  # where in the stream, as the face counts
        self.value: Any = None
        self.error: Exception | None = None

    @property
    def is_over(self) -> bool:
        """Whether it has begun and ended."""
        return self.state is not _PENDING and self.state is not _NEW

    def renew(self, deadline_at: float) -> None:
        """Make it as if it had not begun, but for the error of its last attempt."""
        self.deadline_at = deadline_at
        self.state = _NEW

    def result(self) -> Any:
        """What the method returned. Raises the call's error if that is how it ended, RuntimeError before its end."""
        if self.state is _ANSWERED and self.error is None:
            return self.value
        try:
            raise self.error or RuntimeError("found the call not ended yet")
        finally:
            del self  # the traceback refers to this frame: no cycle may keep it


class Calls:
    """The calls of one connection, from its first byte to its last.

    A face that sends in one thread and receives in another gives ``let_begin``, which returns when no call is
    handed over that has not begun yet. ``answer`` sends the error that a server's own request earns. ``max_depth``
    bounds what is sent. ``msgids`` is how many different msgids there are; tests use few.
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
        self.fault: ProtocolError | None = None
        self.due: frozenset[int] | None = None  # the msgids the server will still answer, once it reads no more
        self.is_to_be_cut = False  # `due` has come; `cut_unread` is yet to be called
        self._closing_msgid: int | None = None
        self.dropped = 0  # replies that answered nobody
        self._table: dict[int, Call] = {}  # pending calls by msgid: who takes a call out of it ends it
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
        self._bounds = Bounds(max_message_size, max_depth)
        self._unchecked_size = unchecked_size(self._bounds)
        self._dialect = dialect
        self._held: list[Any] = []  # messages that were decoded for `receive`
        self._tail: list[bytes] = []  # the last pieces, in which the message that is incomplete begins
        self._rescue: Rescue | None = None
        self._renew()

    def _renew(self) -> None:
        """A new Unpacker goes on."""
        unpacker = self._dialect.unpacker(self._bounds.max_size, 0)
        self._feed, self._unpack, self._tell = unpacker.feed, unpacker.unpack, unpacker.tell
        self._fed = 0
        self._decoded = 0  # bytes up to the end of the last whole message

    @property
    def pending(self) -> int:
        """How many calls wait for their reply."""
        return len(self._table)

    def request(self, method: str, params: Iterable[Any]) -> bytes:
        """The bytes of a request, the next of the stream; `msgid` is its msgid, of which `begin` makes a call.

        Raises what msgpack raises for a value that cannot be packed, ValueError for one that is too large or nested
        too deep, and TypeError for a method that is no string.
        """
        if type(method) is not str:
            raise TypeError(f"found a method of type {type(method).__name__}, expected str")
        self.msgid = msgid = self._next_msgid()
        data = self._pack((REQUEST, msgid, method, params))
        if len(data) > self._unchecked_size:
            check_outgoing(len(data), data, params, self._bounds)
        return data

    def packed_request(self, body: bytes) -> bytes:
        """Likewise, of a method and params that `body_packer` packed before."""
        self.msgid = msgid = self._next_msgid()
        return _PACKED_HEAD + msgid.to_bytes(4, "big") + body

    def _free_msgid(self) -> int:
        """The next msgid that is free, once each has been used."""
        for step in range(1, len(self._table) + len(self._abandoned) + 2):
            msgid = (self.msgid + step) % self._msgids
            if msgid not in self._table and msgid not in self._abandoned:
                return msgid
        raise OverflowError(f"all {self._msgids} msgids of the connection are taken by unanswered calls")

    def closing_request(self) -> bytes:
        """The bytes that ask the server to say when it reads no more; `due` is what it says. Ask once."""
        self._closing_msgid = self.msgid = msgid = self._next_msgid()
        self._abandoned.add(msgid)
        return closing_request(msgid)

    def begin(self, call: Call, msgid: int, starts_at: int) -> None:
        """Make ``call`` the call of the request with ``msgid``; `cut` is told where the stream ended."""
        call.msgid = msgid
        call.starts_at = starts_at
        call.error = None
        call.state = _PENDING
        self._table[msgid] = call

    def withdraw(self, call: Call) -> None:
        """Its bytes were not handed over, nor will they be: as if it had not begun."""
        if self._table.pop(call.msgid, None) is not None:
            call.state = _NEW

    def notify(self, method: str, params: Iterable[Any]) -> bytes:
        """The bytes of a notification, the next of the stream. Raises like `request`."""
        if type(method) is not str:
            raise TypeError(f"found a method of type {type(method).__name__}, expected str")
        data = self._pack((NOTIFY, method, params))
        if len(data) > self._unchecked_size:
            check_outgoing(len(data), data, params, self._bounds)
        return data

    def receive(self, data: bytes) -> list[Call]:
        """The calls that ``data`` answers, in order. After bytes that are no replies `fault` says what was found."""
        ended: list[Call] = []
        if self._rescue is not None:
            self._go_by_outline(data)
            return self._match_held(ended)
        self._fed = end = self._fed + len(data)
        try:
            while self._held:
                self._match(self._held.pop(0), ended)
            self._feed(data)
            while self._decoded != end:
                message = self._unpack()
                self._decoded = self._tell()
                self._match(message, ended)
        except DECODE_ERRORS as error:
            self._note_incomplete(error, data)
            self._match_held(ended)
        except ProtocolError as error:
            self.fault = error
        else:
            if self._tail:
                self._tail.clear()
        return ended

    def _match_held(self, ended: list[Call]) -> list[Call]:
        try:
            while self._held:
                self._match(self._held.pop(0), ended)
        except ProtocolError as error:
            self.fault = error
        return ended

    def _go_by_outline(self, data: bytes) -> None:
        """Hold the messages in ``data``, after one that the Unpacker could not read, until none is incomplete."""
        assert self._rescue is not None
        self._held += self._rescue.messages(data)
        self.fault = self._rescue.fault
        if self._rescue.is_over:
            self._rescue = None
            self._renew()

    def reply(self, msgid: int, data: bytes) -> list[Any] | None:
        """The whole reply, if ``data`` is the one to the request with ``msgid`` and nothing else: the usual case.

        For who waits alone, to whom a call that begins and ends costs too much. After None the call must begin,
        and ``receive(b"")`` goes on with ``data``.
        """
        if self._rescue is not None:
            self._go_by_outline(data)
            return None
        self._fed += len(data)
        try:
            self._feed(data)
            message = self._unpack()
        except DECODE_ERRORS as error:
            self._note_incomplete(error, data)
            return None
        self._decoded = self._tell()
        if (
            self._decoded == self._fed
            and type(message) is list
            and len(message) == 4
            and message[1] == msgid
            and message[0] == RESPONSE
        ):
            return message
        self._held.append(message)
        self._tail[:] = [data]
        return None

    def _match(self, message: Any, ended: list[Call]) -> None:
        if type(message) is not list or len(message) != 4 or message[0] != RESPONSE or type(message[1]) is not int:
            asked = to_message(message)  # raises for what nobody may send
            self.dropped += 1  # a server may send requests and notifications; nobody here serves them
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
        """The call of a reply that came before its call had begun; if there is none the reply is dropped.

        The one to the request of `closing_request` is kept in mind.
        """
        if msgid == self._closing_msgid:
            self._abandoned.discard(msgid)
            self._closing_msgid = None
            self.due = due_of(error, value)
            self.is_to_be_cut = self.due is not None
            return None
        self._let_begin()
        call = self._table.pop(msgid, None)
        if call is None:
            self.dropped += 1
            self._abandoned.discard(msgid)
        return call

    def _note_incomplete(self, error: BaseException, data: bytes) -> None:
        """Keep the bytes of a message that is incomplete; if its Unpacker has failed they need a `Rescue`."""
        incomplete = self._fed - self._decoded  # tell() counts an unfinished message as consumed: _decoded does not
        if data:
            if incomplete < len(data):  # it begins in them
                self._tail.clear()
            self._tail.append(data)
        if not isinstance(error, msgpack.OutOfData) or incomplete > self._bounds.max_size:
            tail = b"".join(self._tail)
            self._tail.clear()
            self._rescue = Rescue(self._dialect, self._bounds.max_size)
            self._go_by_outline(tail[len(tail) - incomplete :])

    def watch(self, call: Call) -> None:
        """Let `expire` end ``call`` at its deadline."""
        if len(self._deadlines) > 64 + 2 * len(self._table):  # most have ended: forget them
            self._deadlines = [entry for entry in self._deadlines if entry[2].state is _PENDING]
            heapq.heapify(self._deadlines)
        self._watched += 1
        heapq.heappush(self._deadlines, (call.deadline_at, self._watched, call))

    def next_deadline_at(self) -> float | None:
        """When `expire` will have something to do; None means never."""
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
        """Nobody waits for ``call`` any more: its reply is dropped when it comes. False if it had ended before."""
        if call.state is not _PENDING or self._table.get(call.msgid) is not call:  # its msgid may be another's by now
            return False
        if self._table.pop(call.msgid, None) is None:  # another thread has taken it out meanwhile
            return False
        self._abandoned.add(call.msgid)
        call.state = CallState.ABANDONED
        return True

    def cut_unread(self, reason: str) -> list[Call]:
        """End every call that is not `due`: the server has not read it. No more may begin."""
        assert self.due is not None
        self.is_to_be_cut = False
        ended = [call for msgid, call in list(self._table.items()) if msgid not in self.due]
        for call in ended:
            del self._table[call.msgid]
            call.error = NotSent(f"{reason}; the call did not run")
            call.state = CallState.NOT_SENT
        return ended

    def cut(self, at: int, reason: str) -> list[Call]:
        """End every call: the stream is over, and only what starts before ``at`` was handed over, at least in part."""
        ended = []
        while self._table:
            _, call = self._table.popitem()
            if call.starts_at >= at:
                call.error = NotSent(f"{reason}; the call did not run")
                call.state = CallState.NOT_SENT
            else:
                call.error = ProtocolError(reason) if self.fault else Lost(f"{reason}; the call may have run")
                call.state = CallState.LOST
            ended.append(call)
        return ended


def body_packer(bounds: Bounds = BOUNDS, dialect: Dialect = DIALECT) -> Callable[[str, Iterable[Any]], bytes]:
    """A function that packs a method and its params for `Calls.packed_request`; it raises like `Calls.request`."""
    pack = dialect.packer().pack
    unchecked = unchecked_size(bounds)

    def body(method: str, params: Iterable[Any]) -> bytes:
        if type(method) is not str:
            raise TypeError(f"found a method of type {type(method).__name__}, expected str")
        data: bytes = pack(method) + pack(params)
        if len(data) > unchecked:
            check_outgoing(HEAD_BYTES + len(data), data, params, bounds)
        return data

    return body


def body_of(request: bytes) -> bytes:
    """The method and params in a ``request`` of `Calls`, for `Calls.packed_request`."""
    return request[2 + _MSGID_BYTES.get(request[2], 1) :]
