"""Calls that are answered later: each is a small record, and holds no greenlet. Runs in the worker.

A call is parked when its method has returned a `Later`. The thread or greenlet that answers packs the reply itself.
Everything else happens in the thread of the loop, which other threads wake by one watcher. So threads compete for one
thing only, the right to end a call, and its `Later` gives that right once.
"""

from __future__ import annotations

import sys
from collections.abc import Container, Iterator
from time import monotonic
from typing import Any

from gevent.monkey import get_original

from rpccluster.log import escaped, logger
from rpccluster.protocol.bounded import CALL
from rpccluster.protocol.codec import pack_response
from rpccluster.protocol.messages import NOTIFY, REQUEST
from rpccluster.service import Later
from rpccluster.worker.current import Call
from rpccluster.worker.hot.replies import Replies
from rpccluster.worker.hot.room import Room
from rpccluster.worker.native.wake import Wake
from rpccluster.worker.service.later import Parked
from rpccluster.worker.service.leader_only import LOST_TEXT

__all__ = ["ParkedCalls"]

SLICE_SECONDS = 0.003  # how long calls are given up before the loop polls again

_thread_id = get_original("_thread", "get_ident")


class ParkedCalls:
    """All parked calls of a worker; ``count`` is their number."""

    def __init__(self, room: Room, replies: Replies) -> None:
        self.room = room
        self.replies = replies
        self.count = 0
        self._records: dict[Any, dict[_Record, None]] = {}  # by outbox, in order of arrival
        self._thread = _thread_id()
        self._answers: Any = None  # of other threads: a `Wake`, from the first call on
        self._go_on = room.loop.timer(0.0, priority=-1)  # behind what was polled with it

    def park(self, outbox: Any, message: list[Any], parked: Parked) -> None:
        """Park the call of ``message``, whose method has returned a `Later`.

        Its reply goes to ``outbox``, which is None if the call was answered meanwhile. Raises RuntimeError if another
        call has returned the same `Later`.
        """
        later = parked.later
        if outbox is not None and later._call is None:
            record = self._add(outbox, message, parked)
            if later._outcome is not None:  # it was answered before its method returned
                record.answer()
            elif parked.interruption is not None:
                record.end(parked.interruption)
            elif outbox.is_gone:
                self.drop(outbox)
            return
        if parked.limit is not None:
            parked.limit.end()
        if later._call is not None:
            raise RuntimeError("found the Later of another call, expected a new one for each call")
        later._call = _ENDED
        self.expire(later)

    def _add(self, outbox: Any, message: list[Any], parked: Parked) -> _Record:
        if self._answers is None:
            self._answers = Wake(self.room.loop, self._send)
        record = parked.later._call = _Record(self, outbox, message, parked)
        self._records.setdefault(outbox, {})[record] = None
        self.count += 1
        return record

    def close(self) -> None:
        """Let go of what another process cannot have; no call waits."""
        if self._answers is not None:
            self._answers.close()
            self._answers = None
        self._go_on.close()

    def calls(self) -> Iterator[Call]:
        """Return all parked calls, without their params."""
        return (Call(record.outbox, record.message()) for record in self._all())

    def since(self) -> Iterator[tuple[float, str, Any]]:
        """Return of each parked call when it was parked (monotonic seconds), its method, and its outbox."""
        return ((record.begun_at, record.name, record.outbox) for record in self._all())

    def msgids(self, outbox: Any) -> list[int]:
        """Return the msgids of the parked requests of ``outbox``."""
        return [record.msgid for record in self._records.get(outbox, ()) if record.msgid is not None]

    @property
    def outboxes(self) -> list[Any]:
        """The outboxes that have parked calls."""
        return list(self._records)

    def of(self, outbox: Any, msgid: int | None) -> list[_Record]:
        """Return the parked requests of ``outbox`` with ``msgid``; all its calls if that is None."""
        return [record for record in self._records.get(outbox, ()) if msgid in (None, record.msgid)]

    def withdraw(self, outboxes: Container[Any]) -> dict[Any, list[Any]]:
        """Take out the calls of ``outboxes`` that begin anew where their connection goes, as if they had not begun."""
        taken: dict[Any, list[Any]] = {}
        for outbox in [outbox for outbox in self._records if outbox in outboxes]:
            for record in [record for record in self._records[outbox] if record.later._again is not None]:
                again = record.again()
                if record.later._take():
                    self._forget(record, "moved")
                    taken.setdefault(outbox, []).append(again)
        return taken

    def drop(self, outbox: Any) -> None:
        """End the calls of ``outbox``, whose connection is closed, unless they run to their end all the same."""
        for record in list(self._records.get(outbox, ())):
            if not record.later._outlives_connection and self.expire(record.later):
                self.room.dropped_replies += record.msgid is not None
                self.room.tally.end_of(record.name, "Cancelled", record.began_ns)
                self._forget(record, "dropped")
                self.room.schedule()

    def give_up(self, error: BaseException) -> None:
        """End all parked calls with ``error``, many in several turns of the loop: each of them is logged."""
        self._give_up(iter(self._all()), error)

    def _give_up(self, records: Iterator[_Record], error: BaseException) -> None:
        slice_end = monotonic() + SLICE_SECONDS
        for record in records:
            record.end(error)
            if monotonic() > slice_end:
                self._go_on.stop()
                self._go_on.start(self._give_up, records, error)
                return

    def leave_to_parent(self) -> None:
        """Forget all parked calls in a forked child; the parent answers them."""
        for record in self._all():
            record.later._take()
        self._records.clear()
        self.count = 0

    def _all(self) -> list[_Record]:
        return [record for records in self._records.values() for record in records]

    def expire(self, later: Later) -> bool:
        """End the call of ``later`` without an answer. Returns False if it has just got one."""
        is_over = later._take()
        if is_over:
            later._note_over(self._tell_soon)
        return is_over

    def _tell_soon(self, on_over: Any) -> None:
        self.room.loop.run_callback(_tell, on_over)

    # -- in whatever thread

    def send(self, record: _Record, reply: bytes, error: str) -> None:
        """Send ``reply``, which is empty for a notification; ``error`` is the text of its error, or empty."""
        if _thread_id() == self._thread:
            self._send(record, reply, error)
        else:
            self._answers.put((record, reply, error))

    # -- in the thread of the loop

    def _send(self, record: _Record, reply: bytes, error: str) -> None:
        if record not in self._records.get(record.outbox, ()):
            return  # it has ended, or belongs to the parent
        if record.token is not None and self.room.leading.is_lost(record.token):
            error = LOST_TEXT
            reply = b"" if record.msgid is None else pack_response(record.msgid, error, None)
        self._forget(record, escaped(error) if error else "ok")
        self.room.tally.end_of(record.name, error, record.began_ns)
        if error:
            self.replies.count_error()
        if reply:
            record.outbox.put(reply)
        else:
            record.outbox.end_notification()
        self.room.schedule()

    def _forget(self, record: _Record, outcome: str) -> None:
        records = self._records[record.outbox]
        del records[record]
        if not records:
            del self._records[record.outbox]
        self.count -= 1
        later = record.later
        later._call, later._outcome = _ENDED, None
        later._note_end()
        if record.limit is not None:
            record.limit.end()
            record.limit.interrupt = _interrupt_nobody  # or the two would keep each other
        if record.log is not None:
            record.log(record.outbox.peer, record.name, outcome)


class _Record:
    """The data of a parked call."""

    __slots__ = (
        "_calls",
        "_message",
        "began_ns",
        "begun_at",
        "later",
        "limit",
        "log",
        "msgid",
        "name",
        "outbox",
        "token",
    )

    def __init__(self, calls: ParkedCalls, outbox: Any, message: list[Any], parked: Parked) -> None:
        self._calls = calls
        self.outbox = outbox
        self.msgid: int | None = message[1] if message[0] is REQUEST else None  # None for a notification
        self.name = sys.intern(message[-2])
        self._message: list[Any] | None = None
        self.begun_at = monotonic()
        self.later = parked.later
        self.began_ns = parked.began_ns
        self.limit = parked.limit
        self.log = parked.log
        self.token = parked.token
        if self.limit is not None:
            self.limit.interrupt = self.end

    def message(self) -> list[Any]:
        """Return the decoded call, without its params; always the same list."""
        if self._message is None:
            self._message = [NOTIFY, self.name, []] if self.msgid is None else [REQUEST, self.msgid, self.name, []]
        return self._message

    def again(self) -> list[Any]:
        """Return the call with which it begins anew elsewhere, with the time that its caller has left it."""
        message = [*self.message()[:-1], self.later._again]
        if self.limit is None:
            return message
        options = {"timeout": max(0.0, self.limit.ends_at - monotonic())}
        return [*message[:-2], CALL, [*message[-2:], options]]

    def answer(self) -> None:
        """Send the answer of its `Later`. Runs in any thread; may block, as packing and `Replies.told` may."""
        outcome = self.later._outcome
        if outcome is None:
            return  # `ParkedCalls.park` has sent it already
        error, value = outcome
        reply = b""
        if error is None and self.msgid is not None:
            try:
                reply = pack_response(self.msgid, None, value)
                error = self._calls.replies.too_large(reply)
            except BaseException as raised:  # a value may raise anything: that becomes the caller's error
                error = raised
        if error is None:
            self._calls.send(self, reply, "")
        else:
            self._fail(error)

    def end(self, error: BaseException) -> None:
        """Answer the call with ``error``, unless its `Later` was answered just now. Runs in the hub."""
        if self._calls.expire(self.later):
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        text = self._calls.replies.told(self.outbox, self.name, error)
        self._calls.send(self, b"" if self.msgid is None else pack_response(self.msgid, text, None), text)


def _interrupt_nobody(error: BaseException) -> None:
    pass


class _Ended:
    """Stands for the record of an ended call."""

    def answer(self) -> None:
        """Do nothing, since the call has ended."""


_ENDED = _Ended()


def _tell(on_over: Any) -> None:
    try:
        on_over()
    except BaseException:  # the service's code, and in the hub
        logger.error("The function on_over of a Later failed", exc_info=True)
