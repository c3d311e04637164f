"""The output of a connection: replies gather during a turn of the loop, leave in one send, and wait for a slow peer.

Runs in the worker, on the loop's callbacks. Owns the unsent output and the watcher for writing, not the socket. A send
that fails ends this connection, and never reaches a runner; its calls run on, and their replies are dropped and
counted.
"""

from __future__ import annotations

import _socket
import gc
from collections import deque
from collections.abc import Collection
from typing import Any, Callable

from rpccluster.errors import ProtocolError
from rpccluster.identity import NOBODY as UNKNOWN
from rpccluster.identity import Identity
from rpccluster.system import MSG_NOSIGNAL, WRITABLE
from rpccluster.worker.access.access import Allowed
from rpccluster.worker.hot.led import lost_msgids, note_under_another, without_lost
from rpccluster.worker.hot.room import NOBODY, Happened, Listener, Room

__all__ = ["HIGH_WATER_BYTES", "LARGE_REPLY_BYTES", "Outbox"]

HIGH_WATER_BYTES = 1_048_576  # unsent output above which a connection's calls wait
LOW_WATER_BYTES = 262_144
GATHER_BYTES = 65_536  # of large replies, before they are sent
LARGE_REPLY_BYTES = 512  # replies above this count against the connection at once
JOINED_BYTES = 4096  # of small pieces, which become one: each would cost two hundred bytes beside its own

# what happens often: a look-up in the class takes 0.2 µs before Python 3.12
_ANSWERED, _UNSENT, _SENT, _HIGH_WATER, _LOW_WATER = (
    Happened.ANSWERED,
    Happened.UNSENT,
    Happened.SENT,
    Happened.HIGH_WATER,
    Happened.LOW_WATER,
)


class Outbox:
    """The output of one socket.

    The runners put replies into ``replies`` directly; ``pending`` counts received calls that are not answered yet.
    """

    __slots__ = (
        "_forward",
        "_gathered",
        "_listener",
        "_room",
        "_socket",
        "closing_msgid",
        "has_left",
        "held",
        "identity",
        "is_closed",
        "led",
        "led_lost",
        "led_token",
        "moved_as",
        "peer",
        "pending",
        "replies",
        "reports",
        "tables",
        "unsent",
    )

    def __init__(
        self, room: Room, sock: _socket.socket, peer: str, listener: Listener, identity: Identity = UNKNOWN
    ) -> None:
        """``peer`` names the client in log lines, ``identity`` is what is known of it.

        ``listener`` learns what has happened to the output.
        """
        self.identity = identity
        self.tables = room.tables  # of the methods that it may call
        self._room = room
        self._socket = sock
        self._listener = listener
        self._forward: Callable[[list[bytes]], None] | None = None  # where replies go when it has moved
        self._gathered = 0  # bytes of the large ones among `replies`
        self.peer = peer
        self.closing_msgid: int | None = None  # of the peer's request to hear when nothing more is read
        self.led: list[Any] | None = None  # calls that only a leader may answer, and which have ended in this turn
        self.led_token = 0  # of the lead under which they have begun
        self.led_lost: set[int] | None = None  # msgids of further ones, whose lead is over
        self.held = 0  # calls that are held back
        self.has_left = False  # the peer waits for no reply any more
        self.moved_as = 0  # the number of its connection, once that has moved
        self.is_closed = False  # not here any more
        self.pending = 0
        self.replies: list[bytes] = []  # of this turn of the loop
        self.reports = False  # whether `Happened.ANSWERED` is told
        self.unsent: Unsent | None = None

    def allow(self, allowed: Allowed) -> None:
        """Let the peer call what is ``allowed`` from now on."""
        self.tables = allowed.tables

    @property
    def is_backed_up(self) -> bool:
        """Whether the peer has left too much unread, and has not read most of it yet."""
        return self.unsent is not None and self.unsent.is_high

    @property
    def has_room_again(self) -> bool:
        """Whether enough of ``max_pending_calls`` calls are answered to receive more."""
        return self.pending <= self._room.max_pending_calls // 2

    @property
    def is_gone(self) -> bool:
        """Whether the connection is closed and has not moved, so that replies are dropped."""
        return self.is_closed and self._forward is None

    # -- what has become of a call

    def put(self, reply: bytes) -> None:
        """Send ``reply`` with the others of this turn."""
        is_first = not self.replies
        self.replies.append(reply)  # first: while a finalizer of the service waits, others add and send
        if is_first:
            self._room.dirty.append(self)
        if len(reply) > LARGE_REPLY_BYTES:
            self._gather(len(reply))

    def _gather(self, size: int) -> None:
        """Count a large reply of ``size`` bytes, and send before too many of them gather.

        This may run in a runner. No garbage is collected while it sends: a finalizer of the service might wait, and
        let another runner send amid this output.
        """
        self._gathered += size
        if self._gathered <= GATHER_BYTES:
            return
        self._room.handled_large = True
        was_enabled = gc.isenabled()
        gc.disable()
        try:
            self.flush()
        finally:
            if was_enabled:
                gc.enable()

    def note_led(self, call: Any, token: int) -> None:
        """Note that ``call`` has ended, which began under the lead with ``token`` and must be answered under it."""
        if not self.led:
            self.led, self.led_token = [call], token
        elif token == self.led_token:
            self.led.append(call)
        else:
            note_under_another(self, self._room.leading, call, token)

    def _look_at_led(self) -> None:
        """Replace the replies of this turn that may not leave any more."""
        leading = self._room.leading
        if self.led_lost is None and leading.token_in_force() == self.led_token:
            self.led = None
            return
        lost = lost_msgids(self, leading)
        if lost:
            self.replies[:] = [without_lost(reply, lost) for reply in self.replies]

    def end_notification(self) -> None:
        """Count a notification that has run; it gets no reply."""
        self.pending -= 1
        if self.reports and not self.replies and not self.is_closed:
            self._listener.handle(_ANSWERED)

    def expect(self, msgids: Collection[int]) -> None:
        """Count calls that other processes answer."""
        self.pending = len(msgids)

    @property
    def has_replies(self) -> bool:
        """Whether replies wait to be sent at the end of this turn."""
        return bool(self.replies)

    def say(self, reply: bytes) -> None:
        """Send ``reply`` now, which answers no call."""
        self.pending += 1
        self.replies.append(reply)
        self.flush()

    def send_first(self, output: bytes) -> None:
        """Send the unsent output that another process has left."""
        if output:
            self.keep(memoryview(output))

    def begin_note(self) -> None:
        """Do nothing: this engine notes nothing for the master."""

    def end_note(self) -> None:
        """Do nothing, as `begin_note`."""

    def await_closing(self, msgid: int) -> bool:
        """Note that the peer asks for ``rpc.closing``. Returns False if it has asked before."""
        if self.closing_msgid is not None:
            return False
        self.closing_msgid = msgid
        self._room.begun -= 1  # it is no call
        self.end_notification()
        return True

    def tell(self, happened: Happened) -> None:
        """Tell the listener what has happened elsewhere."""
        self._listener.handle(happened)

    def tell_cancel(self, msgid: int) -> None:
        """Tell the listener that the peer cancels its calls with ``msgid``."""
        self._listener.cancel(msgid)

    def leave(self) -> bool:
        """Have calls of methods with ``cancel_on_disconnect`` end, since the peer has gone; false if there are none."""
        self.has_left = True
        is_wanted: bool = self._room.cancelling.is_wanted
        if is_wanted and self.pending:
            self._room.cancelling.leave(self)
        return is_wanted

    def refuse(self, error: ProtocolError) -> None:
        """Tell the listener that the input is no call, so that nothing behind it is run."""
        self._listener.refuse(error)

    # -- sending

    def flush(self) -> None:
        """Send the gathered replies, and report that, if wanted. Never raises, never blocks."""
        replies = self.replies
        count = len(replies)
        if self.led is not None:
            self._look_at_led()
        if count:
            data = replies[0] if count == 1 else b"".join(replies)
            self._gathered = 0
            self.pending -= count
            if self.is_closed:
                self._reply_from_afar(list(replies))
                replies.clear()
                return
            replies.clear()  # first: what gathers from here on is of the next turn
            if self.unsent is not None:
                self.keep(memoryview(data))
            else:
                try:
                    sent = self._socket.send(data, MSG_NOSIGNAL)
                except (BlockingIOError, InterruptedError):
                    self.keep(memoryview(data))
                except OSError:
                    self._room.dropped_replies += count
                    self._listener.handle(Happened.BROKEN)
                else:
                    if sent != len(data):
                        self.keep(memoryview(data)[sent:])
        if self.reports and not self.is_closed:
            self._listener.handle(_ANSWERED)

    def keep(self, rest: memoryview) -> None:
        """Keep output until the kernel has room for it."""
        unsent = self.unsent
        if unsent is None:
            unsent = self.unsent = Unsent(self._room.loop, self._socket, self._on_sent, self._on_broken)
            unsent.add(rest)
            self._listener.handle(_UNSENT)  # last: it may do anything
        else:
            unsent.add(rest)
        if unsent.size > HIGH_WATER_BYTES and not unsent.is_high and self.unsent is unsent:
            unsent.is_high = True
            self._listener.handle(_HIGH_WATER)

    def _on_sent(self) -> None:
        """Note that the peer has read some of the kept output."""
        unsent = self.unsent
        assert unsent is not None
        if unsent.size:
            self._listener.handle(_UNSENT)
        else:
            self.unsent = None
            self._room.handled_large = True
            self._listener.handle(_SENT)
        if unsent.is_high and unsent.size < LOW_WATER_BYTES:
            unsent.is_high = False
            self._listener.handle(_LOW_WATER)
        if self.reports and not self.is_closed:
            self._listener.handle(_ANSWERED)

    def _on_broken(self) -> None:
        self._listener.handle(Happened.BROKEN)

    # -- the end

    def close(self) -> None:
        """Send no more, and report running calls to nobody."""
        self.is_closed = True
        self._listener = NOBODY  # or the two would keep each other until the garbage is collected
        if self.is_gone and self.pending:
            self._room.parked.drop(self)
        if self.unsent is not None:
            self.unsent.close()
            self.unsent = None
            self._room.handled_large = True

    def unsent_content(self) -> bytes:
        """Return all unsent output."""
        return self.unsent.content() if self.unsent is not None else b""

    def forward_to(self, forward: Callable[[list[bytes]], None]) -> None:
        """Pass the replies of running calls to ``forward`` once this is closed, since the connection moves."""
        self._forward = forward

    def _reply_from_afar(self, replies: list[bytes]) -> None:
        """Forward the replies of a connection that has moved; drop those of one that has ended."""
        if self._forward is not None:
            self._forward(replies)
        else:
            self._room.dropped_replies += len(replies)


class Unsent:
    """Output that the kernel has no room for: pieces in their order, sent when there is room; ``size`` is in bytes.

    Made when a send falls short, and dropped when all is sent.
    """

    __slots__ = ("_on_error", "_on_progress", "_pieces", "_socket", "_watcher", "is_high", "size")

    def __init__(
        self, loop: Any, sock: _socket.socket, on_progress: Callable[[], None], on_error: Callable[[], None]
    ) -> None:
        """``on_progress`` is called when some output was sent; with ``size`` 0 for the last time."""
        self._socket = sock
        self._pieces: deque[memoryview | bytearray] = deque()
        self._on_progress = on_progress
        self._on_error = on_error
        self.size = 0
        self.is_high = False  # between high and low water
        self._watcher = loop.io(sock.fileno(), WRITABLE)
        self._watcher.start(self._on_writable)

    def add(self, piece: memoryview) -> None:
        """Send ``piece`` behind the others."""
        last = self._pieces[-1] if self._pieces else None
        if type(last) is bytearray and len(last) + len(piece) <= JOINED_BYTES:
            last += piece
        else:
            self._pieces.append(bytearray(piece) if len(piece) <= JOINED_BYTES else piece)
        self.size += len(piece)

    def content(self) -> bytes:
        """Return all pieces as one."""
        return b"".join(self._pieces)

    def _on_writable(self) -> None:
        before = self.size
        try:
            self._send()
        except OSError:
            self._on_error()
            return
        if not self.size:
            self.close()
        if self.size < before:
            self._on_progress()

    def _send(self) -> None:
        """Send until there is no room. Raises OSError if the peer has gone."""
        pieces = self._pieces
        try:
            while pieces:
                sent = self._socket.send(pieces[0], MSG_NOSIGNAL)
                self.size -= sent
                if sent == len(pieces[0]):
                    pieces.popleft()
                else:
                    pieces[0] = memoryview(pieces[0])[sent:]
        except (BlockingIOError, InterruptedError):
            pass

    def close(self) -> None:
        """Stop watching."""
        self._watcher.stop()
        self._watcher.close()
