"""Decodes the bytes of a connection to messages, in whatever pieces they come. Sans-I/O.

Owns the Unpacker, and the bytes of an incomplete message. It does not know what the messages mean.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgpack

from rpccluster.client.core.exchange.dialect import Dialect
from rpccluster.client.core.exchange.rescue import Rescue
from rpccluster.errors import ProtocolError
from rpccluster.protocol.codec import DECODE_ERRORS
from rpccluster.protocol.messages import RESPONSE

__all__ = ["Replies"]

T = TypeVar("T")

_MOST_REST = 4096  # bytes of an incomplete message that are looked at again when more has come


class Replies:
    """Reads messages. ``fault`` says why the stream has ended, if its bytes are no MessagePack-RPC."""

    def __init__(self, max_message_size: int, dialect: Dialect) -> None:
        self.fault: ProtocolError | None = None
        self._max_size = max_message_size
        self._dialect = dialect
        self._held: list[Any] = []  # messages that were decoded for `reply`, or by a rescue
        self._tail: list[bytes] = []  # the last pieces, in which the message that is incomplete begins
        self._rescue: Rescue | None = None
        self._wire = dialect.wire
        self._rest = b""  # the beginning of a short message that was looked at for `take_common`
        self._renew()

    def _renew(self) -> None:
        """Go on with a new Unpacker."""
        unpacker = self._dialect.unpacker(self._max_size, 0)
        self._feed, self._unpack, self._tell = unpacker.feed, unpacker.unpack, unpacker.tell
        self._fed = 0
        self._decoded = 0  # bytes up to the end of the last whole message

    @property
    def is_between(self) -> bool:
        """Whether nothing is held of a message, so that what comes next begins one."""
        return self._decoded == self._fed and not (self._held or self._rest) and self._rescue is None

    def take_common(self, data: bytes, table: dict[int, Any], ended: list[Any], answered: Any) -> bytes:
        """Give each call of ``table`` that has a common reply in ``data`` its value, and the state ``answered``.

        It leaves the table and is added to ``ended``. Returns what is left for `read`.
        """
        if self._wire is None or self._decoded != self._fed or self._held or self._rescue is not None:
            return self._with_rest(data)
        data = self._with_rest(data)
        taken = self._wire.take_replies(data, table, ended, answered, self._max_size)
        if taken == len(data):
            return b""
        rest = data[taken:]
        if len(rest) <= _MOST_REST and self._wire.is_incomplete(rest, self._max_size):
            self._rest = rest
            return b""
        return rest

    def _with_rest(self, data: bytes) -> bytes:
        """Return ``data`` behind what was kept of a message, and keep nothing."""
        if self._rest:
            data, self._rest = self._rest + data, b""
        return data

    def read(self, data: bytes, take: Callable[[Any, T], None], taken: T) -> None:
        """Call ``take(message, taken)`` with each message that ``data`` completes, in order.

        If ``take`` raises, the remaining messages come the next time. A call for each message costs a tenth less than a
        generator of them.
        """
        if self._rescue is not None:
            self._go_by_outline(data)
            self._take_held(take, taken)
            return
        self._fed = end = self._fed + len(data)
        try:
            self._feed(data)
            if self._held:
                self._take_held(take, taken)
            while self._decoded != end:
                message = self._unpack()
                self._decoded = self._tell()
                take(message, taken)
        except DECODE_ERRORS as error:
            self._note_incomplete(error, data)
            self._take_held(take, taken)
        else:
            if self._tail:
                self._tail.clear()

    def _take_held(self, take: Callable[[Any, T], None], taken: T) -> None:
        while self._held:
            take(self._held.pop(0), taken)

    def reply(self, msgid: int, data: bytes) -> list[Any] | None:
        """Return the whole reply if ``data`` is exactly the one to the request ``msgid``: the usual case.

        For a thread that waits alone, for which registering a call costs too much. After None, a `read` of b"" goes on
        with ``data``.
        """
        if self._rescue is not None:
            self._go_by_outline(data)
            return None
        if self._rest:
            data = self._with_rest(data)
        if self._wire is not None and self._decoded == self._fed and not self._held:
            common: list[Any] | None = self._wire.read_reply(data, msgid, self._max_size)
            if common is not None:
                return common
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

    def _go_by_outline(self, data: bytes) -> None:
        """Hold the messages in ``data`` by their outlines, after an unreadable one, until none is incomplete."""
        assert self._rescue is not None
        self._held += self._rescue.messages(data)
        self.fault = self._rescue.fault
        if self._rescue.is_over:
            self._rescue = None
            self._renew()

    def _note_incomplete(self, error: BaseException, data: bytes) -> None:
        """Keep the bytes of an incomplete message; if its Unpacker has failed they need a `Rescue`."""
        incomplete = self._fed - self._decoded  # tell() counts an unfinished message as consumed: _decoded does not
        if data:
            if incomplete < len(data):  # it begins in them
                self._tail.clear()
            self._tail.append(data)
        if not isinstance(error, msgpack.OutOfData) or incomplete > self._max_size:
            tail = b"".join(self._tail)
            self._tail.clear()
            self._rescue = Rescue(self._dialect, self._max_size)
            self._go_by_outline(tail[len(tail) - incomplete :])
