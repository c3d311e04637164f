"""The replies of calls that only a leader may answer: those of a lead that is over are replaced before they leave.

The outbox of a connection notes such a call when it has ended (`note_led`), and looks at it when it sends the replies
of this turn. Runs in the worker.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgpack

from rpccluster.protocol.codec import pack_response
from rpccluster.worker.service.leader_only import LOST_TEXT, Leading

__all__ = ["lost_msgids", "without_lost"]

#: The calls of an outbox that have ended in this turn: each as it came or its msgid, with the token at its begin.
Noted = list[tuple[Any, int]]


def lost_msgids(leading: Leading, noted: Noted) -> set[int]:
    """Return the msgids of the requests among ``noted`` whose lead is over."""
    present = leading.token_in_force()
    lost = [call for call, token in noted if token != present]
    return {call if type(call) is int else call[1] for call in lost if type(call) is int or len(call) == 4}


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
