"""Ends calls before their time: those that ``rpc.cancel`` names, and those whose caller has gone. Runs in the worker.

A call may be in a greenlet, answered later, held back, or running in the worker that had its connection before. In the
first two states it is interrupted by the hub, since a runner cannot switch to another one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from greenlet import getcurrent

from rpccluster.protocol.bounded import CALL, CANCEL, CANCELLED, GONE
from rpccluster.protocol.codec import pack_response
from rpccluster.protocol.messages import NOTIFY
from rpccluster.protocol.unreadable import decoded
from rpccluster.worker.current import Cancelled

__all__ = ["Cancelling"]

_CANCEL = [NOTIFY, CANCEL]


class Cancelling:
    """Finds the calls of a worker by their connection and msgid, and cancels them."""

    def __init__(self, room: Any, runners: Any, replies: Any, registry: Any) -> None:
        self._registry = registry
        self._room = room
        self._runners = runners
        self._replies = replies

    def cancel(self, msgid: int) -> None:
        """End the calls of this connection with MSGID, a notification; they are answered with "Cancelled: …"."""
        outbox = getcurrent().outbox
        if outbox is not None:
            self.cancel_calls(outbox, msgid)

    def look_at(self, outbox: Any, calls: Iterable[Any]) -> bool:
        """Carry out what ``calls`` cancel: they wait for a greenlet, and it may be what frees one.

        It is done once more in their turn, which is harmless. Returns whether they do nothing else.
        """
        is_all = True
        for call in calls:
            if type(call) is list and call[:2] == _CANCEL and type(call[-1]) is list and len(call[-1]) == 1:
                self.cancel_calls(outbox, call[-1][0])
            else:
                is_all = False
        return is_all

    def cancel_calls(self, outbox: Any, msgid: int, text: str = CANCELLED) -> None:
        """End the calls of ``outbox`` with ``msgid``, but the one that runs here."""
        if type(msgid) is not int:
            return
        here, later = getcurrent(), self._room.loop.run_callback
        for runner in self._runners.all:
            if runner.outbox is outbox and runner is not here and _msgid_of(runner.call) == msgid:
                later(runner.cancel, runner.call, Cancelled(text))
        for record in self._room.parked.of(outbox, msgid):
            later(record.end, Cancelled(text))
        for call in self._room.take_held(outbox, msgid):
            self._replies.count_error()
            self._room.tally.end_of(_method_of(call), f"Cancelled: {text}")
            outbox.put(pack_response(msgid, f"Cancelled: {text}", None))
            self._room.schedule()
        outbox.tell_cancel(msgid)

    @property
    def is_wanted(self) -> bool:
        """Whether any method wants its calls to end when their caller has gone."""
        return bool(self._registry.cancelling)

    def leave(self, outbox: Any, msgid: int | None = None) -> None:
        """End the calls of ``outbox``, or those with ``msgid``, whose methods want that when their caller has gone."""
        names = self._registry.cancelling
        later = self._room.loop.run_callback
        for runner in self._runners.all:
            call = runner.call if runner.outbox is outbox else None
            if call is not None and call[-2] in names and msgid in (None, _msgid_of(call)):
                later(runner.cancel, call, Cancelled(GONE))
        for record in self._room.parked.of(outbox, msgid):
            if record.name in names:
                later(record.end, Cancelled(GONE))

    def cancel_moved(self, number: int, msgid: int, is_gone: bool) -> None:
        """End the calls with ``msgid`` of a connection that has moved with this ``number``."""
        outboxes = {runner.outbox for runner in self._runners.all if runner.outbox is not None}
        for outbox in {*outboxes, *self._room.parked.outboxes}:
            if outbox.moved_as == number:
                self.leave(outbox, msgid) if is_gone else self.cancel_calls(outbox, msgid)


def _method_of(call: Any) -> Any:
    """Return the method of a call that was held back, or the one that is named inside."""
    name, params = (call if type(call) is list else decoded(call))[-2:]
    return params[0] if name in (CALL, CALL.encode()) else name


def _msgid_of(call: Any) -> int | None:
    return call[1] if type(call) is list and len(call) == 4 else None
