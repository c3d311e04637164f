"""One client's connection: bytes to calls, replies to bytes. Runs in the worker, on the loop's callbacks.

Owns the socket, its watchers, the incomplete message and the unsent output. An error here ends this
connection alone.
"""

from __future__ import annotations

import _socket
import contextlib
import enum
import socket
from dataclasses import dataclass
from itertools import repeat
from time import monotonic
from typing import Any, Callable, NamedTuple

from rpccluster.errors import ProtocolError
from rpccluster.log import escaped, logger
from rpccluster.protocol.codec import make_packer
from rpccluster.protocol.shared import Partial, SharedDecoder
from rpccluster.worker.connection_states import TRANSITIONS, Event, State, next_state
from rpccluster.worker.engine import Engine
from rpccluster.worker.unsent import Unsent

__all__ = ["Connection", "ConnectionLimits", "Given", "Pause", "Shared"]

RECEIVE_BYTES = 16_384  # small, so that one flooding client cannot put thousands of calls before the others'
RECEIVE_MORE_BYTES = 262_144  # while a long message arrives
HIGH_WATER_BYTES = 1_048_576  # unsent output above which a connection's calls wait
LOW_WATER_BYTES = 262_144
GATHER_BYTES = 65_536  # of large replies, before they are sent
LINGER_SECONDS = 1.0  # how long a peer may take to notice that we have finished

_READ = 1


class Pause(enum.IntFlag):
    """Why a connection is not read."""

    NOT = 0
    STARVED = 1  # the worker runs as many calls as it may
    PENDING = 2  # this connection has as many unanswered calls as it may
    CHOKED = 4  # its peer does not read its replies
    ENDED = 8  # nothing more is to be read, ever


@dataclass(frozen=True)
class ConnectionLimits:
    """The options that bound one connection; sizes in bytes, times in seconds, 0 for none."""

    max_pending_calls: int
    idle_timeout: float
    message_timeout: float
    write_timeout: float


class Given(NamedTuple):
    """What a connection is made of beside its socket; see `rpccluster.ipc.messages.Give`."""

    address: Any
    is_eof: bool
    input: bytes
    output: bytes


class Shared:
    """What all connections of a worker share: the loop, the decoder, the engine, the deadlines."""

    def __init__(self, loop: Any, engine: Engine, limits: ConnectionLimits, max_message_size: int) -> None:
        self.loop = loop
        self.engine = engine
        self.limits = limits
        self.decoder = SharedDecoder(max_message_size)
        self.room = memoryview(bytearray(RECEIVE_MORE_BYTES))
        self.open: set[Connection] = set()
        self.partial: dict[Connection, float] = {}  # deadline of the incomplete message
        self.unsent: dict[Connection, float] = {}  # deadline of the unread replies
        self.lingering: dict[Connection, float] = {}
        self.dropped_replies = 0
        self.on_count: Callable[[int], None] = lambda count: None  # told how many are open
        self.on_closed: Callable[[Connection], object] = lambda connection: None

    def forget(self, connection: Connection) -> None:
        """``connection`` has ended here."""
        self.open.discard(connection)
        for waiting in (self.partial, self.unsent, self.lingering):
            waiting.pop(connection, None)
        self.on_count(len(self.open))


class Connection:
    """One socket. The engine uses ``out`` and ``is_choked`` directly."""

    __slots__ = (
        "_address",
        "_all",
        "_deferred",
        "_forward",
        "_gathered",
        "_is_ending",
        "_partial",
        "_pause",
        "_quiet_since",
        "_reader",
        "_socket",
        "_state",
        "_unsent",
        "_was_heard",
        "is_choked",
        "is_closed",
        "needs_look",
        "out",
        "pending",
    )

    def __init__(self, shared: Shared, sock: _socket.socket, address: Any) -> None:
        self._all = shared
        self._socket = sock
        self._address = address
        self._partial: Partial | None = None
        self._unsent: Unsent | None = None
        self._deferred: list[Any] | None = None
        self._forward: Callable[[list[bytes]], None] | None = None  # where replies go when it has moved
        self._pause = Pause.NOT
        self._state = State.OPEN
        self._is_ending = False  # of the state: nothing more is read; closes when all is answered
        self._was_heard = False  # since it was last asked whether it is quiet
        self._quiet_since = monotonic()
        self.out: list[bytes] = []  # replies of this turn of the loop
        self._gathered = 0  # bytes of the large ones among them
        self.pending = 0  # calls decoded and not yet ended
        self.is_choked = False
        self.is_closed = False  # of the state: not here any more
        self.needs_look = False  # flush() has more to do than to send
        self._reader = shared.loop.io(sock.fileno(), _READ)
        self._reader.start(self._on_readable)

    @property
    def peer(self) -> str:
        """The client's address, for log lines."""
        address = self._address
        if isinstance(address, (tuple, list)) and len(address) >= 2:
            return f"[{address[0]}]:{address[1]}" if ":" in str(address[0]) else f"{address[0]}:{address[1]}"
        return "a Unix socket"

    def is_quiet_for(self, seconds: float, now: float) -> bool:
        """Whether nothing is under way here and nothing was heard for ``seconds``; asked again and again."""
        if self._was_heard or self.pending or self.out or self._unsent or self._partial:
            self._was_heard = False
            self._quiet_since = now
        return now - self._quiet_since >= seconds and not self._is_ending

    # -- input

    def _on_readable(self) -> None:
        partial = self._partial
        data: bytes | memoryview
        try:
            if partial is not None and partial.size >= RECEIVE_BYTES:  # a long message: nothing new for each piece
                room = self._all.room
                data = room[: self._socket.recv_into(room)]
            else:
                data = self._socket.recv(RECEIVE_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.close()
            return
        if not data or self._is_ending:
            self._end_of_file(data)
            return
        self._was_heard = True
        self._take_in(data, partial)

    def _take_in(self, data: bytes | memoryview, partial: Partial | None) -> None:
        """Decode what came; ``partial`` is what came before."""
        decoder = self._all.decoder
        try:
            messages, rest = decoder.decode(data) if partial is None else decoder.decode_more(partial, data)
        except ProtocolError as error:
            self.refuse(error)
            return
        if messages:
            self._enqueue(messages)
        if rest is not partial:
            self._note_partial(rest)

    def _enqueue(self, messages: list[Any]) -> None:
        """Put messages into the engine's queue; what they are is looked at when their turn comes."""
        engine = self._all.engine
        engine.extend(zip(repeat(self), messages))
        count = len(messages)
        engine.begun += count
        self.pending += count
        if not engine.is_scheduled:
            engine.schedule()
        if self.pending > self._all.limits.max_pending_calls:
            self._stop(Pause.PENDING)
        elif engine.is_starved:
            engine.add_starved(self)
            self._stop(Pause.STARVED)

    def _note_partial(self, rest: Partial | None) -> None:
        self._partial = rest
        if rest is None:
            self._all.partial.pop(self, None)
        elif self._all.limits.message_timeout:
            self._all.partial[self] = monotonic() + self._all.limits.message_timeout

    def _end_of_file(self, data: bytes | memoryview) -> None:
        """The client sends nothing more: answer what runs, then close. While lingering, only the end matters."""
        if not self._is_ending:
            self._stop_reading(Event.PEER_ENDED)
        elif not data:
            self._close(Event.PEER_ENDED)

    def refuse(self, error: ProtocolError) -> None:
        """The peer does not speak MessagePack-RPC: close, with one log line."""
        if self.is_closed:
            return
        logger.warning("Closing the connection of %s: %s", self.peer, escaped(str(error)))
        self.close()

    # -- reading or not

    def _stop(self, reason: Pause) -> None:
        self._pause |= reason
        self.needs_look = True
        self._reader.stop()

    def _go_on(self, reason: Pause) -> None:
        if self._pause & reason:
            self._pause &= ~reason
            if not self._pause and not self.is_closed:
                self.needs_look = False
                self._reader.start(self._on_readable)

    def resume_starved(self) -> None:
        """Greenlets are free again."""
        self._go_on(Pause.STARVED)

    def defer(self, message: Any) -> None:
        """Keep a message of a peer that does not read its replies; its turn comes when they are gone."""
        if self._deferred is None:
            self._deferred = []
        self._deferred.append(message)

    def _choke(self) -> None:
        self.is_choked = True
        self._stop(Pause.CHOKED)

    def _unchoke(self) -> None:
        self.is_choked = False
        deferred, self._deferred = self._deferred, None
        if deferred:
            self.pending -= len(deferred)
            self._enqueue(deferred)
        self._go_on(Pause.CHOKED)

    # -- output

    def gather(self, size: int) -> None:
        """A large reply of ``size`` bytes was put into ``out``: not too many of them may gather."""
        self._gathered += size
        if self._gathered > GATHER_BYTES:
            self.flush()

    def end_notification(self) -> None:
        """A notification has run; nobody is told."""
        self.pending -= 1
        if self.needs_look and not self.out and not self.is_closed:
            self._look()

    def flush(self) -> None:
        """Send the replies that have gathered, and do what was put off until they are. Never raises, never blocks."""
        out = self.out
        count = len(out)
        if count:
            data = out[0] if count == 1 else b"".join(out)
            self._gathered = 0
            self.pending -= count
            if self.is_closed:
                self._reply_from_afar(list(out))
            elif self._unsent is not None:
                self._keep(memoryview(data))
            else:
                self._send(data, count)
            out.clear()
        if self.needs_look and not self.is_closed:
            self._look()

    def _look(self) -> None:
        if self._pause & Pause.PENDING and self.pending <= self._all.limits.max_pending_calls // 2:
            self._go_on(Pause.PENDING)
        if self._is_ending and self.pending <= 0 and self._unsent is None:
            self._end()

    def _send(self, data: bytes, replies: int) -> None:
        try:
            sent = self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self._all.dropped_replies += replies
            self.close()
            return
        if sent != len(data):
            self._keep(memoryview(data)[sent:])

    def _keep(self, rest: memoryview) -> None:
        """Keep what the kernel has no room for until it has."""
        if self._unsent is None:
            self._unsent = Unsent(self._all.loop, self._socket, self._on_sent, self.close)
            self._note_progress()
        self._unsent.add(rest)
        if self._unsent.size > HIGH_WATER_BYTES and not self.is_choked:
            self._choke()

    def _on_sent(self) -> None:
        """The peer has read some of what was kept."""
        assert self._unsent is not None
        size = self._unsent.size
        if size:
            self._note_progress()
        else:
            self._unsent = None
            self._all.unsent.pop(self, None)
        if self.is_choked and size < LOW_WATER_BYTES:
            self._unchoke()
        if self.needs_look and not self.is_closed:
            self._look()

    def _note_progress(self) -> None:
        if self._all.limits.write_timeout:
            self._all.unsent[self] = monotonic() + self._all.limits.write_timeout

    # -- the end

    def stop_reading(self) -> None:
        """Read nothing more; when all is answered and sent, end."""
        if not self.is_closed:
            self._stop_reading(Event.MUST_END)

    def _stop_reading(self, event: Event) -> None:
        self._step(event)
        if self._state is not State.LINGERING:
            self._note_partial(None)
            self._stop(Pause.ENDED)
            self._look()

    def _step(self, event: Event) -> None:
        """Go to the next state; what every call asks for is kept as plain flags."""
        self._state = state = next_state(self._state, event)
        self._is_ending = state is not State.OPEN
        self.is_closed = state is State.CLOSED or state is State.MOVED

    def _end(self) -> None:
        """Everything is answered: say so, and give the peer a moment to read it before the socket goes.

        Closing a socket with unread input would reset it, and the last replies might never be read.
        """
        if self._state is State.HALF_CLOSED:
            self._close(Event.ANSWERED)
        elif self._state is State.ENDING:
            self._step(Event.ANSWERED)
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)
            self._all.lingering[self] = monotonic() + LINGER_SECONDS
            self.needs_look = False
            self._reader.start(self._on_readable)

    def close(self, reason: str = "") -> None:
        """Close now; replies of calls that still run will be dropped and counted."""
        if not self.is_closed:
            if reason:
                logger.info("Closing the connection of %s: %s", self.peer, reason)
            self._close(Event.BROKEN)

    def _close(self, event: Event) -> None:
        self._let_go(event)
        self._socket.close()
        self._all.on_closed(self)

    def _let_go(self, event: Event) -> None:
        """Watch the socket no more, and be none of the worker's connections."""
        self._step(event)
        self._reader.stop()
        self._reader.close()
        if self._unsent is not None:
            self._unsent.close()
        self._unsent = self._deferred = self._partial = None
        self._all.forget(self)

    # -- moving

    @property
    def is_movable(self) -> bool:
        """Whether it can go on in another worker: it is there, and we have not begun to end it."""
        return (self._state, Event.GIVEN) in TRANSITIONS

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing is under way here."""
        return not (self.pending or self._partial or self._unsent)

    def give(self, waiting: list[Any], forward: Callable[[list[bytes]], None]) -> tuple[_socket.socket, Given]:
        """Stop here, for good. Returns the socket, still open, and all that another process needs to go on with it.

        Raises what a Packer does for a call that cannot be packed again; nothing has changed then.

        ``waiting`` are its messages that the engine had in its queue; replies of calls that still run here are
        handed to ``forward``. Raises what a Packer does, and has changed nothing, if a message cannot be packed again.
        """
        self.flush()
        pack = make_packer().pack
        messages = list(map(pack, [*(self._deferred or ()), *waiting]))
        pieces = self._partial.pieces if self._partial is not None else ()
        output = self._unsent.content() if self._unsent is not None else b""
        given = Given(self._address, self._state is State.HALF_CLOSED, b"".join([*messages, *pieces]), output)
        self._forward = forward
        self._let_go(Event.GIVEN)
        return self._socket, given

    def take_over(self, given: Given, awaited: int) -> None:
        """Go on where another worker stopped; ``awaited`` calls still run elsewhere."""
        self.pending = awaited
        if given.output:
            self._keep(memoryview(given.output))
        if given.input:
            self._take_in(given.input, None)
        if given.is_eof and not self.is_closed:
            self._stop_reading(Event.PEER_ENDED)

    def _reply_from_afar(self, replies: list[bytes]) -> None:
        """The connection is not here any more: another worker has it, or nobody."""
        if self._forward is not None:
            self._forward(replies)
        else:
            self._all.dropped_replies += len(replies)
