"""The input of a connection: receives bytes, decodes them, and queues calls or puts them off. Runs on the loop's
callbacks.

Owns the watcher for reading and the incomplete call, not the socket. The connection decides whether the socket is read,
by `Inbox.start` and `Inbox.stop`. Unread input stays in the kernel, and the peer's send blocks.

Everything that one recv brought is queued, so ``max_pending_calls`` may be passed by that much. While long batches
wait, a recv takes `RECEIVE_LESS_BYTES` unless it goes on with a long call, and as much more as the last call had, if
that was long and came alone: another one may come, and what comes in two pieces is read twice. A peer that sends much
is not read again until all have had their turn, because decoded calls take twenty times their bytes.
"""

from __future__ import annotations

import _socket
from collections.abc import Iterator
from typing import Any

from rpccluster.protocol.closing import closing_request
from rpccluster.protocol.shared import Rest, Undecodable
from rpccluster.protocol.skip import Skip, resumed
from rpccluster.system import READABLE
from rpccluster.worker.hot.outbox import Outbox
from rpccluster.worker.hot.repacking import packed_again
from rpccluster.worker.hot.room import NOBODY, RECEIVE_MORE_BYTES, Happened, Listener, Room, is_used_up

__all__ = ["Inbox"]

RECEIVE_BYTES = 16_384  # small, so that one flooding client cannot put thousands of calls before the others'
RECEIVE_LESS_BYTES = 2048  # while other peers that send much wait for their turn
LIGHT_BYTES = 1024  # bytes of a light batch, which does not wait for all long ones

# what happens often: a look-up in the class takes 0.2 µs before Python 3.12
_INCOMPLETE, _COMPLETE, _OTHERS_TURN = Happened.INCOMPLETE, Happened.COMPLETE, Happened.OTHERS_TURN


class Inbox:
    """The input of one socket. ``partial`` is the received part of an incomplete call."""

    __slots__ = (
        "_expected",
        "_last_long",
        "_listener",
        "_outbox",
        "_put_off",
        "_room",
        "_socket",
        "_watcher",
        "partial",
        "was_heard",
    )

    def __init__(self, room: Room, sock: _socket.socket, outbox: Outbox, listener: Listener) -> None:
        """The calls' replies go to ``outbox``; ``listener`` learns what has happened to the input."""
        self._room = room
        self._socket = sock
        self._outbox = outbox
        self._listener = listener
        self._last_long: Iterator[Any] | None = None  # the calls that were put into the queue of long ones last
        self._put_off: list[Any] | None = None  # calls of a peer that does not read its replies
        self._expected = 0  # bytes of the last call, if it was long and came alone, until they are asked for
        self.partial: Rest = None
        self.was_heard = False  # cleared by the reader
        self._watcher = room.loop.io(sock.fileno(), READABLE)
        self._watcher.start(self.receive)

    # -- whether it is read

    def start(self) -> None:
        """Receive input from now on."""
        self._watcher.start(self.receive)

    def stop(self) -> None:
        """Receive nothing until `start`."""
        self._watcher.stop()

    def receive_last(self) -> None:
        """Receive once more, then report `Happened.HEARD_LAST`."""
        self._watcher.stop()
        self._watcher.start(self._receive_last)

    def _receive_last(self) -> None:
        self.receive()
        self._listener.handle(Happened.HEARD_LAST)

    def discard(self) -> None:
        """Wait for the peer's end, and drop all other input."""
        self._watcher.stop()
        self._watcher.start(self._discard)

    def _discard(self) -> None:
        try:
            data = self._socket.recv(RECEIVE_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._listener.handle(Happened.BROKEN)
            return
        if not data:
            self._listener.handle(Happened.PEER_ENDED)

    def close(self) -> None:
        """Stop for good, and drop what was kept."""
        self._watcher.stop()
        self._watcher.close()
        self._room.handled_large |= bool(self.partial or self._put_off)
        self.partial = self._put_off = None
        self._listener = NOBODY  # or the two would keep each other until the garbage is collected

    # -- from bytes to calls

    def receive(self) -> None:
        """Receive once, and take the input in."""
        partial, room = self.partial, self._room
        data: bytes | memoryview
        try:
            if room.long and (partial is None or partial.size < RECEIVE_LESS_BYTES):
                expected, self._expected = self._expected, 0  # or many short calls would come as one long one
                data = self._socket.recv(RECEIVE_LESS_BYTES + expected)
            elif partial is None or partial.missing <= RECEIVE_BYTES:
                data = self._socket.recv(RECEIVE_BYTES)
            else:  # a long string: nothing new for each piece, and not much of what comes behind it
                size = min(RECEIVE_MORE_BYTES, partial.missing + RECEIVE_BYTES)
                data = room.buffer[: self._socket.recv_into(room.buffer, size)]
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._listener.handle(Happened.BROKEN)
            return
        if not data:
            self._listener.handle(Happened.PEER_ENDED)
        else:
            self.was_heard = True
            self._take_in(data, partial)

    def _take_in(self, data: bytes | memoryview, partial: Rest) -> None:
        """Decode ``data``, which goes on where ``partial`` ends, and queue the calls."""
        decoder = self._room.decoder
        rest: Rest = None
        size = len(data)
        try:
            if partial is None:
                calls, done = decoder.decode_whole(data)  # type: ignore[arg-type]  # a view comes with a partial alone
                if done != len(data):
                    calls, rest = decoder.decode_rest(calls, data[done:])
            else:
                size += partial.size
                calls, rest = decoder.decode_more(partial, data)
        except Undecodable as undecodable:
            calls, rest = [*undecodable.messages, undecodable.error], None
            self._listener.handle(Happened.UNDECODABLE)
        if calls:
            if RECEIVE_LESS_BYTES < size <= RECEIVE_BYTES and len(calls) == 1:
                self._expected = size
            self._queue(calls, len(data) > LIGHT_BYTES or partial is not None)
        if rest is not partial:
            self.keep(rest)

    def keep(self, rest: Rest) -> None:
        """Keep ``rest``, the bytes of an incomplete call, or None."""
        if self.partial is not None and self.partial.size > RECEIVE_BYTES:
            self._room.handled_large = True
        self.partial = rest
        self._listener.handle(_COMPLETE if rest is None else _INCOMPLETE)

    def forget_partial(self) -> None:
        """Drop the incomplete call, of which nothing more will come."""
        self.keep(None)

    def drop_waiting(self) -> None:
        """Forget the calls that wait for their turn."""
        self.withdraw()

    def _queue(self, calls: list[Any], is_long: bool) -> None:
        """Queue ``calls`` behind this connection's own; ``is_long`` says that they take their time.

        They are checked when their turn comes, which saves a pass over them. So a value that is no message ends the
        connection in its turn: the calls before it are answered, those behind it are not run.
        """
        room, outbox = self._room, self._outbox
        count = len(calls)
        outbox.pending += count
        if self._put_off is not None:
            self._put_off += calls
            return
        if not room.is_scheduled:
            room.schedule()
        if is_long or self._last_long is not None:
            self._queue_long(iter(calls), is_long)
        else:
            room.add((outbox, iter(calls), room.turn_at))
        room.begun += count
        if outbox.pending > room.max_pending_calls:
            self._listener.handle(Happened.PENDING)
        elif room.is_full:
            if not room.cancelling.look_at(outbox, calls):
                room.waiting.add(self._listener)
                self._listener.handle(Happened.NO_GREENLET)
        elif is_long and room.long:
            room.waiting.add(self._listener)
            self._listener.handle(_OTHERS_TURN)

    def _queue_long(self, calls: Iterator[Any], is_long: bool) -> None:
        """Queue a long batch, or a light one behind the long ones of its connection."""
        if is_long or (self._last_long is not None and not is_used_up(self._last_long)):
            self._last_long = calls
            self._room.add_long((self._outbox, calls, self._room.turn_at))
        else:
            self._last_long = None
            self._room.add((self._outbox, calls, self._room.turn_at))

    # -- calls that do not run yet

    def put_off(self) -> None:
        """Keep waiting and coming calls from running until `go_on`."""
        self._put_off = [*(self._put_off or ()), *self.withdraw()]

    def go_on(self) -> None:
        """Run the calls that were put off, and those that come."""
        calls, self._put_off = self._put_off, None
        if calls:
            self.queue_again(calls)

    def withdraw(self) -> list[Any]:
        """Take this connection's calls that wait for their turn out of the queue."""
        return self._room.withdraw((self._outbox,)).get(self._outbox, [])

    def queue_again(self, calls: list[Any]) -> None:
        """Queue ``calls``, which were withdrawn."""
        self._outbox.pending -= len(calls)
        self._queue(calls, True)

    def unbegun(self) -> list[Any]:
        """Return the calls that were put off."""
        return self._put_off or []

    # -- moving

    def content(self, waiting: list[Any]) -> bytes:
        """Return all input that has led to no reply yet, as bytes; change nothing. ``waiting`` are the withdrawn calls.

        Raises as `packed_again` does.
        """
        calls = packed_again([*self.unbegun(), *waiting])
        if self._outbox.closing_msgid is not None:
            calls.insert(0, closing_request(self._outbox.closing_msgid))  # as if it had not come yet
        rest = self.partial.data if self.partial is not None else b""
        return b"".join([rest, *calls] if isinstance(self.partial, Skip) else [*calls, rest])

    @property
    def waited(self) -> float:
        """How long the calls of `content` have waited, in seconds: not at all, since their deadlines are as of now."""
        return 0.0

    def restore(self, data: bytes, waited: float = 0.0) -> None:
        """Take in the `content` of an inbox of another process, which has ``waited`` so many seconds."""
        self.was_heard = True  # where it comes from
        room = self._room
        room.schedule()
        room.turn_at -= waited
        skip, data = resumed(data, self._room.decoder.bounds)
        if data:
            self._take_in(data, None)
        room.turn_at += waited
        if skip is not None:
            self.keep(skip)
