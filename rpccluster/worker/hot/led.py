"""The replies of calls that only a leader may answer: those of a lead that is over are replaced before they leave.

The outbox of a connection notes such a call when it has ended (`note_led`), and looks at all of them at once when it
sends the replies of this turn. They have begun under one lead, so one comparison does; if the lead has changed between
two of them, those of the older one are lost then and there. Runs in the worker.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Protocol

import msgpack

from rpccluster.protocol.codec import pack_response
from rpccluster.worker.service.leader_only import LOST_TEXT, Leading

__all__ = ["lost_msgids", "note_under_another", "without_lost"]


class Notes(Protocol):
    """What an outbox notes of a turn: ``led`` are calls that began under the lead ``led_token``, each as it came or
    its msgid; ``led_lost`` the msgids of those that began under another one.
    """

    led: list[Any] | None
    led_token: int
    led_lost: set[int] | None


def note_under_another(notes: Notes, leading: Leading, call: Any, token: int) -> None:
    """Note ``call``, which began under another lead than those noted before."""
    lost = notes.led_lost or set()
    if leading.is_lost(notes.led_token):
        lost.update(_msgids(notes.led or ()))
        notes.led, notes.led_token = [call], token
    else:
        lost.update(_msgids([call]))
    notes.led_lost = lost


def lost_msgids(notes: Notes, leading: Leading) -> set[int]:
    """Return the msgids of the requests in ``notes`` whose lead is over; forget the notes."""
    lost, calls = notes.led_lost or set(), notes.led or ()
    notes.led = notes.led_lost = None
    if leading.is_lost(notes.led_token):
        lost.update(_msgids(calls))
    return lost


def _msgids(calls: Iterable[Any]) -> list[int]:
    """Return the msgids of the requests among ``calls``; notifications have none."""
    return [call if type(call) is int else call[1] for call in calls if type(call) is int or len(call) == 4]


def without_lost(replies: bytes, lost: Collection[int]) -> bytes:
    """Return ``replies``, whole messages, with an error instead of each reply to a call of ``lost``."""
    unpacker = msgpack.Unpacker(raw=True, max_buffer_size=0)
    unpacker.feed(replies)
    pieces, at = [], 0
    while at < len(replies):
        unpacker.read_array_header()
        _, msgid = unpacker.unpack(), unpacker.unpack()
        unpacker.skip()
        unpacker.skip()
        end = unpacker.tell()
        pieces.append(pack_response(msgid, LOST_TEXT, None) if msgid in lost else replies[at:end])
        at = end
    return b"".join(pieces)
