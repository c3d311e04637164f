"""One client's connection: bytes to calls, replies to bytes. Runs in the worker, on the loop's callbacks.

Owns the socket, its watchers, the incomplete message and the unsent output. An error here ends this
connection alone.
"""

from __future__ import annotations

import _socket
import contextlib
import logging
import socket
from collections.abc import Iterable, Iterator
from operator import length_hint
from typing import Any, Callable

from rpccluster.errors import LimitExceeded, ProtocolError
from rpccluster.ipc.scoreboard import LIMITS, Cell
from rpccluster.log import logger
from rpccluster.protocol.closing import closing_request, closing_response, msgids_of
from rpccluster.protocol.shared import Rest, Undecodable
from rpccluster.protocol.skip import Skip, resumed
from rpccluster.worker.connections.context import RECEIVE_MORE_BYTES, ConnectionContext
from rpccluster.worker.connections.given import Given, packed_again
from rpccluster.worker.connections.states import TRANSITIONS, Event, Pause, State, next_state
from rpccluster.worker.hot.caller import Batch
from rpccluster.worker.hot.outbox import HIGH_WATER_BYTES
from rpccluster.worker.hot.reading import Reading

__all__ = ["Connection"]

RECEIVE_BYTES = 16_384  # small, so that one flooding client cannot put thousands of calls before the others'
RECEIVE_LESS_BYTES = 2048  # while others who send much wait for their turn: what is decoded takes up much more
LIGHT_BYTES = 1024  # of calls that need not wait for all who have sent more
NEW_SECONDS = 1.0  # how long a peer may take, when all ends, to send its first bytes
LINGER_SECONDS = 1.0  # how long a peer may take to notice that we have finished


class Connection(Reading):
    """One socket, read and answered."""

    __slots__ = (
        "_closing_msgid",
        "_deferred",
        "_is_ending",
        "_long",
        "_partial",
        "_quiet_since",
        "_state",
        "_was_heard",
    )

    def __init__(self, common: ConnectionContext, sock: _socket.socket, address: Any) -> None:
        super().__init__(common, sock, address)
        self._partial: Rest = None
        self._deferred: list[Any] = []  # messages of a peer that does not read its replies
        self._long: Iterator[Any] | None = None  # what was put into the engine's queue of long ones last
        self._state = State.OPEN
        self._closing_msgid: int | None = None  # of the peer's request to hear when we read no more
        self._is_ending = False  # of the state: nothing more is read; closes when all is answered
        self._was_heard = False  # since it was last asked whether it is quiet
        self._quiet_since = common.clock()
        self._reader.start(self._on_readable)

    def is_quiet_for(self, seconds: float, now: float) -> bool:
        """Whether nothing is under way here and nothing was heard for ``seconds``; asked again and again."""
        if self._was_heard or self.pending or self.out or self._unsent or self._partial:
            self._was_heard = False
            self._quiet_since = now
        return now - self._quiet_since >= seconds and not self._is_ending

    def excuse(self, seconds: float) -> None:
        """It cannot have been heard for so long: that is no silence of its peer."""
        self._quiet_since += seconds

    # -- input

    def _on_readable(self) -> None:
        partial = self._partial
        data: bytes | memoryview
        try:
            if self._all.engine.long and (partial is None or partial.size < RECEIVE_LESS_BYTES):
                data = self._socket.recv(RECEIVE_LESS_BYTES)
            elif partial is None or partial.missing <= RECEIVE_BYTES:
                data = self._socket.recv(RECEIVE_BYTES)
            else:  # a long string: nothing new for each piece, and not much of what comes behind it
                room = self._all.room
                size = min(RECEIVE_MORE_BYTES, partial.missing + RECEIVE_BYTES)
                data = room[: self._socket.recv_into(room, size)]
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

    def _take_in(self, data: bytes | memoryview, partial: Rest) -> None:
        """Decode what came; ``partial`` is what came before."""
        decoder = self._all.decoder
        rest: Rest = None
        try:
            if partial is None:
                messages, done = decoder.decode_whole(data)  # type: ignore[arg-type]  # a view comes with a partial alone
                if done != len(data):
                    messages, rest = decoder.decode_rest(messages, data[done:])
            else:
                messages, rest = decoder.decode_more(partial, data)
        except Undecodable as undecodable:
            messages, rest = [*undecodable.before, undecodable.error], None
            self._stop(Pause.ENDED)
        if messages:
            self._enqueue(messages, len(data) > LIGHT_BYTES or partial is not None)
        if rest is not partial:
            self._note_partial(rest)

    def _enqueue(self, messages: list[Any], is_long: bool) -> None:
        """Put messages into the engine's queue, behind this connection's own; ``is_long``: they take their time.

        What they are is looked at when their turn comes.
        """
        engine = self._all.engine
        count = len(messages)
        self.pending += count
        if self.is_choked:
            self._deferred += messages
            return
        batch = (self, iter(messages))
        if is_long or self._long is not None:
            self._enqueue_long(batch, is_long)
        else:
            engine.enqueue(batch)
        engine.begun += count
        if not engine.is_scheduled:
            engine.schedule()
        if self.pending > self._all.options.max_pending_calls:
            self._stop(Pause.PENDING)
            self._note_pause(Cell.MAX_PENDING_CALLS, "it has more unanswered calls than max_pending_calls")
        elif engine.is_starved:
            engine.add_starved(self)
            self._stop(Pause.STARVED)
            self._note_pause(Cell.MAX_GREENLETS, "max_greenlets calls are running")
        elif is_long and engine.long:
            engine.add_starved(self)
            self._stop(Pause.STARVED)

    def _enqueue_long(self, batch: Batch, is_long: bool) -> None:
        """Light ones, too, wait behind the long ones of their connection."""
        engine = self._all.engine
        if is_long or length_hint(self._long):
            self._long = batch[1]
            engine.enqueue_long(batch)
        else:
            self._long = None
            engine.enqueue(batch)

    def _note_partial(self, rest: Rest) -> None:
        if self._partial is not None and self._partial.size > RECEIVE_BYTES:
            self._all.engine.handled_large = True
        self._partial = rest
        if rest is None:
            self._all.partial.pop(self, None)
        elif self._all.options.message_timeout:
            self._all.partial[self] = self._all.clock() + self._all.options.message_timeout

    def _end_of_file(self, data: bytes | memoryview) -> None:
        """The client sends nothing more: answer what runs, then close. While lingering, only the end matters."""
        if not self._is_ending:
            self._stop_reading(Event.PEER_ENDED)
        elif not data:
            self._close(Event.PEER_ENDED)

    def refuse(self, error: ProtocolError) -> None:
        """The peer does not speak MessagePack-RPC: close, with one log line. What it sent behind that is not run."""
        if self.is_closed:
            return
        self._note_unread("Closing the connection", error)
        self._all.engine.withdraw({self})
        self.flush()
        self.close()

    def note_unread(self, error: ProtocolError) -> None:
        """One call could not be read, and has been answered with an error: a log line is all it takes."""
        self._note_unread("Refusing a call", error)

    def _note_unread(self, action: str, error: ProtocolError) -> None:
        name = error.limit if isinstance(error, LimitExceeded) else "not_messagepack_rpc"
        self._all.limits.note(LIMITS[name], f"{action} of {self.peer}", str(error), logging.WARNING)

    def _choke(self) -> None:
        self.is_choked = True
        self._deferred += self._all.engine.withdraw({self}).get(self, [])
        self._stop(Pause.CHOKED)
        self._note_pause(Cell.UNREAD_REPLIES, f"it leaves more than {HIGH_WATER_BYTES} bytes of replies unread")

    def _unchoke(self) -> None:
        self.is_choked = False
        deferred, self._deferred = self._deferred, []
        if deferred:
            self.stay(deferred)
        self._go_on(Pause.CHOKED)

    # -- what has been done

    def end_notification(self) -> None:
        """A notification has run; nobody is told."""
        self.pending -= 1
        if self.needs_look and not self.out and not self.is_closed:
            self._look()

    def _look(self) -> None:
        if self._pause & Pause.PENDING and self.pending <= self._all.options.max_pending_calls // 2:
            self._go_on(Pause.PENDING)
        if self._is_ending and self.pending <= 0 and self._unsent is None:
            self._end()

    # -- the end

    def await_closing(self, msgid: int) -> bool:
        """The peer asks to hear when nothing more is read. False if it has asked before."""
        if self._closing_msgid is not None:
            return False
        self._closing_msgid = msgid
        self._all.engine.begun -= 1  # it is no call
        self.end_notification()
        return True

    def stop_reading(self, unanswered: Iterable[Any] = ()) -> None:
        """Read nothing more; when all is answered and sent, end. ``unanswered`` are messages the engine has of it."""
        if self._state is State.OPEN:
            if self._closing_msgid is not None:
                self._say_closing([*msgids_of([*self._deferred, *unanswered]), *self._all.awaited_by(self)])
            elif not self._pause:
                self._on_readable()  # what has come by now is answered; it may be that wish
                if self._is_new():
                    self._all.lingering[self] = self._all.clock() + NEW_SECONDS
                    self._reader.stop()
                    self._reader.start(self._on_first_bytes)
                    return
        if not self.is_closed:
            self._stop_reading(Event.MUST_END)

    def _say_closing(self, due: Iterable[int]) -> None:
        assert self._closing_msgid is not None
        self.out.append(closing_response(self._closing_msgid, due))
        self._closing_msgid = None
        self.pending += 1
        self.flush()

    def _is_new(self) -> bool:
        """Whether it has just come, and nothing from it."""
        return self._state is State.OPEN and not self._was_heard and self._all.clock() < self._quiet_since + NEW_SECONDS

    def _on_first_bytes(self) -> None:
        """All ends, and a peer that had just come has spoken: nothing is read behind that."""
        del self._all.lingering[self]
        self._on_readable()
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
        if self._closing_msgid is not None:
            self._say_closing(())  # which comes back here
        elif self._state is State.HALF_CLOSED:
            self._close(Event.ANSWERED)
        elif self._state is State.ENDING:
            self._step(Event.ANSWERED)
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)
            self._all.lingering[self] = self._all.clock() + LINGER_SECONDS
            self.needs_look = False
            self._reader.start(self._on_readable)

    def close(self, reason: str = "", limit: Cell | None = None) -> None:
        """Close now; replies of calls that still run will be dropped and counted. ``limit`` is one that it passed."""
        if not self.is_closed:
            if limit is not None:
                self._all.limits.note(limit, f"Closing the connection of {self.peer}", reason)
            elif reason:
                logger.info("Closing the connection of %s: %s", self.peer, reason)
            self._close(Event.BROKEN)

    def close_idle(self) -> None:
        """``idle_timeout`` has passed. A call may be on its way: who has asked hears that it is not read."""
        if self._closing_msgid is None:
            self.close("idle_timeout passed", Cell.IDLE_TIMEOUT)
        else:
            self._all.limits.note(Cell.IDLE_TIMEOUT, f"Closing the connection of {self.peer}", "idle_timeout passed")
            self.stop_reading()

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
        self._all.engine.handled_large |= bool(self._unsent or self._partial or self._deferred)
        self._unsent, self._partial, self._deferred = None, None, []
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

    def picture(self, waiting: list[Any]) -> Given:
        """All that another process needs to go on with it, beside the socket; changes nothing.

        ``waiting`` are its messages that the engine had in its queue. Raises what `packed_again` does.
        """
        messages = packed_again([*self._deferred, *waiting])
        rest = self._partial.data if self._partial is not None else b""
        output = self._unsent.content() if self._unsent is not None else b""
        if self._closing_msgid is not None:
            messages.insert(0, closing_request(self._closing_msgid))  # as if it had not come yet
        parts = [rest, *messages] if isinstance(self._partial, Skip) else [*messages, rest]
        return Given(self._address, self._state is State.HALF_CLOSED, b"".join(parts), output)

    def fileno(self) -> int:
        """Its socket's descriptor."""
        return self._socket.fileno()

    def move(self, forward: Callable[[list[bytes]], None]) -> _socket.socket:
        """Stop here, for good, and return the socket, still open.

        Replies of calls that still run here are handed to ``forward``.
        """
        self._forward = forward
        self._let_go(Event.GIVEN)
        return self._socket

    def stay(self, waiting: list[Any]) -> None:
        """It cannot move after all: run ``waiting``, which the engine had in its queue, in its turn."""
        self.pending -= len(waiting)
        self._enqueue(waiting, True)

    def take_over(self, given: Given, awaited: int) -> None:
        """Go on where another worker stopped; ``awaited`` calls still run elsewhere."""
        self.pending = awaited
        self._was_heard = True  # where it comes from
        if given.output:
            self._keep(memoryview(given.output))
        skip, data = resumed(given.input, self._all.decoder.bounds)
        if data:
            self._take_in(data, None)
        if skip is not None:
            self._note_partial(skip)
        if given.is_eof and not self.is_closed:
            self._stop_reading(Event.PEER_ENDED)
