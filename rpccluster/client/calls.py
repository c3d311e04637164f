"""The calls of one connection: msgids, deadlines, and which reply answers which call. Sans-I/O; both faces use it.

Owns the msgids and the decoder. Knows no socket, no lock and no clock: bytes and times are handed in, bytes and
ended calls are handed back. A call's states, and the events that end it:

    NEW     ── begin() ───────────────────────────────────→ PENDING
    PENDING ── a reply with its msgid ────────────────────→ ANSWERED    result, or the remote error
            ── expire(), forget() ────────────────────────→ ABANDONED   its msgid stays taken until the late reply came
            ── cut(), its first byte was handed over ─────→ LOST        it may have run
            ── cut(), it was not; or withdraw() ──────────→ NOT_SENT    it certainly did not run
"""

from __future__ import annotations

import enum
import heapq
from collections.abc import Callable, Iterable
from typing import Any

import msgpack

from rpccluster.client.remote import remote_error
from rpccluster.errors import CallTimeout, IllegalTransition, Lost, NotSent, ProtocolError
from rpccluster.protocol.codec import DECODE_ERRORS, make_packer, make_unpacker
from rpccluster.protocol.messages import NOTIFY, REQUEST, RESPONSE, to_message

__all__ = ["Call", "CallState", "Calls"]

_MSGIDS = 2**32  # "32-bit unsigned integer": spec, "Request Message"


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
    """One call. ``deadline_at`` is on the face's clock; ``on_end`` is the face's, to wake whoever waits."""

    __slots__ = ("deadline_at", "error", "msgid", "on_end", "result", "starts_at", "state")

    def __init__(self, deadline_at: float, on_end: Callable[[Call], None] | None = None) -> None:
        self.deadline_at = deadline_at
        self.on_end = on_end
        self.state = _NEW
        self.msgid = -1
        self.starts_at = 0  # bytes of the stream before its first one
        self.result: Any = None
        self.error: Exception | None = None

    @property
    def is_over(self) -> bool:
        """Whether it has begun and ended."""
        return self.state is not _PENDING and self.state is not _NEW

    def outcome(self) -> Any:
        """The result. Raises the error instead if there is one."""
        error = self.error
        if error is None:
            return self.result
        try:
            raise error
        finally:
            del error, self  # the traceback refers to this frame: no cycle may keep them


class Calls:
    """The calls of one connection, from its first byte to its last.

    ``msgids`` is how many different msgids there are; tests use few.
    """

    def __init__(self, max_message_size: int, msgids: int = _MSGIDS) -> None:
        self.fault: ProtocolError | None = None
        self.dropped = 0  # replies that answered nobody
        self.abandoned = 0
        self._table: dict[int, Call] = {}  # pending and abandoned calls by msgid
        self._deadlines: list[tuple[float, int, Call]] = []  # heap of watched calls, ended ones among them
        self._watched = 0
        self._msgids = msgids
        self._next_msgid = 0
        self.queued = 0  # bytes of the stream so far, handed over or not
        self._pack = make_packer().pack
        self._max_message_size = max_message_size
        unpacker = make_unpacker(max_message_size)
        self._feed, self._unpack, self._tell = unpacker.feed, unpacker.unpack, unpacker.tell
        self._fed = 0
        self._decoded = 0  # bytes up to the end of the last whole message

    @property
    def pending(self) -> int:
        """How many calls wait for their reply."""
        return len(self._table) - self.abandoned

    def begin(self, call: Call, method: str, params: Iterable[Any]) -> bytes:
        """Give ``call`` a msgid; return its bytes, to be sent in the order in which they were asked for.

        Raises what msgpack raises for a value that cannot be packed, and TypeError for a method that is no
        string; nothing has happened then.
        """
        if type(method) is not str:
            raise TypeError(f"found a method of type {type(method).__name__}, expected str")
        msgid = self._next_msgid
        if msgid in self._table:
            msgid = self._free_msgid()
        data: bytes = self._pack((REQUEST, msgid, method, params))
        self._next_msgid = (msgid + 1) % self._msgids
        self._table[msgid] = call
        call.msgid = msgid
        call.state = _PENDING
        call.starts_at = self.queued
        self.queued += len(data)
        return data

    def _free_msgid(self) -> int:
        if len(self._table) == self._msgids:
            raise OverflowError(f"all {self._msgids} msgids of the connection are taken by unanswered calls")
        msgid = self._next_msgid
        while msgid in self._table:
            msgid = (msgid + 1) % self._msgids
        return msgid

    def notify(self, method: str, params: Iterable[Any]) -> bytes:
        """The bytes of a notification. Raises like `begin`."""
        if type(method) is not str:
            raise TypeError(f"found a method of type {type(method).__name__}, expected str")
        data: bytes = self._pack((NOTIFY, method, params))
        self.queued += len(data)
        return data

    def receive(self, data: bytes) -> list[Call]:
        """The calls that ``data`` answers, in order. After bytes that are no replies `fault` says what was found."""
        ended: list[Call] = []
        try:
            self._feed(data)
            self._fed += len(data)
            while self._decoded != self._fed:
                message = self._unpack()
                self._decoded = self._tell()
                self._match(message, ended)
        except msgpack.OutOfData:  # tell() counts an unfinished message as consumed: _decoded is from before it
            if self._fed - self._decoded > self._max_message_size:
                self.fault = self._too_big()
        except msgpack.BufferFull:
            self.fault = self._too_big()
        except ProtocolError as error:
            self.fault = error
        except DECODE_ERRORS as error:
            self.fault = ProtocolError(f"found bytes that are not MessagePack ({type(error).__name__}: {error})"[:200])
        return ended

    def _match(self, message: object, ended: list[Call]) -> None:
        if type(message) is not list or len(message) != 4 or message[0] != RESPONSE or type(message[1]) is not int:
            to_message(message)  # raises for what no server may send; nobody here serves requests and notifications
            self.dropped += 1
            return
        call = self._table.pop(message[1], None)
        if call is None:
            self.dropped += 1
        elif call.state is not _PENDING:
            self.dropped += 1
            self.abandoned -= 1
        else:
            if message[2] is not None:
                call.error = remote_error(message[2])
            call.result = message[3]
            call.state = _ANSWERED
            ended.append(call)

    def _too_big(self) -> ProtocolError:
        return ProtocolError(f"found a message of more than {self._max_message_size} bytes (max_message_size)")

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
        at = self.next_deadline_at()
        while at is not None and at <= now:
            call = self._deadlines[0][2]
            self.forget(call)
            call.error = CallTimeout("no reply came within the call's timeout")
            ended.append(call)
            at = self.next_deadline_at()
        return ended

    def forget(self, call: Call) -> None:
        """Nobody waits for ``call`` any more: its reply is dropped when it comes."""
        self._must_be_pending(call)
        call.state = CallState.ABANDONED
        self.abandoned += 1

    def withdraw(self, call: Call) -> None:
        """The bytes of ``call`` were never handed over, nor will be."""
        self._must_be_pending(call)
        del self._table[call.msgid]
        call.state = CallState.NOT_SENT

    def _must_be_pending(self, call: Call) -> None:
        if call.state is not _PENDING:
            raise IllegalTransition(f"found the call {call.state.value}, expected it pending")

    def cut(self, unsent: int, reason: str) -> list[Call]:
        """End every call: the stream is over, and the last ``unsent`` bytes of it were not handed over."""
        ended = [call for call in self._table.values() if call.state is _PENDING]
        self._table.clear()
        self.abandoned = 0
        for call in ended:
            if call.starts_at >= self.queued - unsent:
                call.state = CallState.NOT_SENT
                call.error = NotSent(f"{reason}; the call did not run")
            else:
                call.state = CallState.LOST
                call.error = ProtocolError(reason) if self.fault else Lost(f"{reason}; the call may have run")
        return ended
