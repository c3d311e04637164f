"""One client's connection: its state, its pauses, its deadlines, its end, and its move to another worker.

Runs in the worker, on the loop's callbacks. An inbox and an outbox turn bytes into calls and replies into bytes
(`rpccluster.worker.hot`), and tell the connection what has happened. An error here ends this connection alone.

A connection ends by shutting down its sending side, and closes when the peer has closed, or a second later: closing
with unread input would reset it, and could lose the last replies. A peer that has asked for it (``rpc.closing``) learns
which of its calls will still be answered.
"""

from __future__ import annotations

import _socket
import contextlib
import socket
from collections import Counter
from collections.abc import Iterable
from typing import Any, Callable

from rpccluster.errors import ProtocolError
from rpccluster.identity import NOBODY, Identity
from rpccluster.ipc.scoreboard import Cell
from rpccluster.log import logger
from rpccluster.protocol.closing import closing_response, msgids_of
from rpccluster.system import end_for_all, keep_alive
from rpccluster.worker.connections.context import ConnectionContext
from rpccluster.worker.connections.given import Given
from rpccluster.worker.connections.handshake import Handshake
from rpccluster.worker.connections.pauses import BLAMED, ENDED, HELD, NOT, PENDING, TURN, UNREAD
from rpccluster.worker.connections.states import TRANSITIONS, Event, State, next_state
from rpccluster.worker.hot import HIGH_WATER_BYTES, Engine, Happened

__all__ = ["Connection"]

NEW_SECONDS = 1.0  # how long a peer may take, when all ends, to send its first bytes
LINGER_SECONDS = 1.0  # how long a peer may take to notice that we have finished


class Connection:
    """One socket that is read and answered.

    ``number`` is its number for other processes, once they know it; ``awaited`` then counts its calls that run
    elsewhere, by their worker's serial and their msgid.
    """

    __slots__ = (
        "_common",
        "_engine",
        "_pauses",
        "_quiet_since",
        "_socket",
        "_state",
        "awaited",
        "inbox",
        "number",
        "outbox",
    )

    def __init__(
        self,
        common: ConnectionContext,
        engine: Engine,
        sock: _socket.socket,
        peer: str,
        identity: Identity = NOBODY,
        handshake: Handshake | None = None,
        number: int = 0,
        *,
        is_new: bool = False,
    ) -> None:
        """``handshake`` is what its peer has to go through first; None for nothing.

        ``is_new`` says that nothing was read of the socket, and nothing written.
        """
        self._common = common
        self._engine = engine
        self._socket = sock
        self._state = State.OPEN
        self._pauses = NOT
        self._quiet_since = common.clock()
        self.number = number
        self.awaited: Counter[tuple[int, int]] = _NONE_AWAITED
        self.inbox: Any
        self.outbox: Any
        if handshake is None:
            self.inbox, self.outbox = engine.connect(sock, peer, self, identity, number, is_new=is_new)
        else:
            self._state = State.ENTERING
            self.inbox = self.outbox = handshake

    def handle(self, happened: Happened) -> None:
        """Handle what has happened to the inbox or the outbox."""
        _HANDLERS[happened](self)

    def keep_alive(self, idle_seconds: int) -> None:
        """Have the kernel ask whether the peer lives after so much silence; 0: not at all."""
        with contextlib.suppress(OSError):  # it is just ending
            keep_alive(self._socket, idle_seconds)

    @property
    def is_closed(self) -> bool:
        """Whether it has ended here, or moved."""
        return self.outbox.is_closed

    @property
    def is_paused(self) -> bool:
        """Whether there is a reason not to read it."""
        return bool(self._pauses)

    @property
    def is_at_rest(self) -> bool:
        """Whether no call and no byte is under way here."""
        return not (self.outbox.pending or self.inbox.partial or self.outbox.unsent)

    def is_quiet_for(self, seconds: float, now: float) -> bool:
        """Return whether it is at rest and has received nothing for ``seconds``; asked again and again."""
        inbox = self.inbox
        if inbox.was_heard or self.outbox.has_replies or not self.is_at_rest:
            inbox.was_heard = False
            self._quiet_since = now
        return now - self._quiet_since >= seconds and self._state is State.OPEN

    def excuse(self, seconds: float) -> None:
        """Do not take ``seconds`` in which the worker could not listen for silence of the peer."""
        self._quiet_since += seconds

    # -- before it is served

    def admit(self, identity: Identity, data: bytes) -> None:
        """Serve it from now on, as that of ``identity``; ``data`` has come behind its handshake."""
        self._state = next_state(self._state, Event.ADMITTED)
        self.inbox, self.outbox = self._engine.connect(self._socket, self.outbox.peer, self, identity, self.number)
        self._quiet_since = self._common.clock()
        if data:
            self.inbox.restore(data)
        self._common.on_admitted(self)

    def turn_away(self, why: str) -> None:
        """End it, since its peer has not shown who it is."""
        self._common.limits.note(Cell.CHALLENGES_FAILED, f"Refusing the connection of {self.outbox.peer}", why)
        self._state = next_state(self._state, Event.TURNED_AWAY)
        self._linger()

    # -- whether it is read

    def _stop(self, pause: int, limit: Cell | None = None, why: str = "") -> None:
        """Stop reading it, for this ``pause``. ``limit`` is the limit that it has reached, ``why`` is logged."""
        self._pauses |= pause
        self.outbox.reports = True
        self.inbox.stop()
        if limit is not None:
            self._common.limits.note(limit, f"Not reading from {self.outbox.peer} for now", why)

    def _go_on(self, pause: int) -> None:
        if self._pauses & pause:
            self._pauses &= ~pause
            if not self._pauses and not self.is_closed:
                self.outbox.reports = False
                self.inbox.start()

    def _on_high_water(self) -> None:
        self.inbox.put_off()
        self._stop(UNREAD, *_TOO_MUCH_UNREAD)

    def _on_low_water(self) -> None:
        if not self._pauses & BLAMED:
            self.inbox.go_on()
        self._go_on(UNREAD)

    def _blame(self, until: float) -> None:
        """Begin none of its calls for a while, since workers have crashed at them."""
        self._common.blamed[self] = until
        self.inbox.put_off()
        self._stop(BLAMED)

    def forgive(self) -> None:
        """Go on with a connection that was blamed."""
        del self._common.blamed[self]
        if not self._pauses & UNREAD:
            self.inbox.go_on()
        self._go_on(BLAMED)

    def _on_answered(self) -> None:
        self.look_at_pending()
        self._end_if_answered()

    def look_at_pending(self) -> None:
        """Receive more if few enough of its calls are unanswered."""
        if self._pauses & PENDING and self.outbox.has_room_again:
            self._go_on(PENDING)

    def refuse(self, error: ProtocolError) -> None:
        """Close with one log line, since the peer does not speak MessagePack-RPC; later input is not run."""
        if not self.is_closed:
            self._common.limits.note_unreadable("Closing the connection", self.outbox.peer, error)
            self.inbox.drop_waiting()
            self.outbox.flush()
            self.close()

    def cancel(self, msgid: int) -> None:
        """Ask the workers that had this connection before to end its calls with ``msgid``."""
        for serial, awaited in [*self.awaited]:
            if awaited == msgid:
                self._common.on_cancel(self, serial, msgid, False)

    def _leave(self) -> None:
        """Have the calls end that nobody waits for any more, as far as their methods want that."""
        if self._state is State.ENTERING or not self.outbox.leave():
            return
        for serial, msgid in [*self.awaited]:
            self._common.on_cancel(self, serial, msgid, True)

    # -- the end

    def stop_reading(self, unanswered: Iterable[Any] = ()) -> None:
        """Read no more, and end when all is answered and sent. ``unanswered`` are its calls in the engine."""
        if self._state is State.ENTERING:
            self._close(Event.MUST_END)
            return
        if self._state is State.OPEN:
            if self.outbox.closing_msgid is not None:
                elsewhere = [msgid for _, msgid in self.awaited.elements()]
                self._say_closing([*msgids_of([*self.inbox.unbegun(), *unanswered]), *elsewhere])
            elif not self._pauses:
                self.inbox.receive()  # what has come by now is answered; it may be that wish
                if self._is_new():
                    self._common.lingering[self] = self._common.clock() + NEW_SECONDS
                    self.inbox.receive_last()
                    return
        if not self.is_closed:
            self._stop_reading(Event.MUST_END)

    def _is_new(self) -> bool:
        """Return whether it has just come, and has received nothing."""
        is_young = self._common.clock() < self._quiet_since + NEW_SECONDS
        return self._state is State.OPEN and not self.inbox.was_heard and is_young

    def _on_heard_last(self) -> None:
        """Read no more from a peer that had just come and has spoken now, since everything ends."""
        self._common.lingering.pop(self, None)
        if not self.is_closed:
            self._stop_reading(Event.MUST_END)

    def _on_peer_ended(self) -> None:
        """Answer running calls, then close, since the peer sends no more."""
        if self._state in (State.ENTERING, State.LINGERING):
            self._close(Event.PEER_ENDED)
        else:
            if self._common.follower is not None:
                self._common.follower.note_half_closed(self.outbox)
            self._leave()
            self._stop_reading(Event.PEER_ENDED)

    def _stop_reading(self, event: Event) -> None:
        self._state = next_state(self._state, event)
        if self._state is not State.LINGERING:
            self.inbox.forget_partial()
            self._stop(ENDED)
            self._on_answered()

    def _end_if_answered(self) -> None:
        """If everything is answered, say so, and give the peer a moment to read it before the socket goes."""
        if self._state is State.OPEN or self.outbox.pending > 0 or self.outbox.unsent is not None:
            return
        if self.outbox.closing_msgid is not None:
            self._say_closing(())  # which comes back here
        elif self._state is State.HALF_CLOSED:
            self._close(Event.ANSWERED)
        elif self._state is State.ENDING:
            self._state = next_state(self._state, Event.ANSWERED)
            self._linger()

    def _linger(self) -> None:
        """Say that nothing more is sent, and wait for the peer's end."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
        self._common.lingering[self] = self._common.clock() + LINGER_SECONDS
        self.outbox.reports = False
        self.inbox.discard()

    def _say_closing(self, due: Iterable[int]) -> None:
        msgid, self.outbox.closing_msgid = self.outbox.closing_msgid, None
        assert msgid is not None
        self.outbox.say(closing_response(msgid, due))

    def close(self, reason: str = "", limit: Cell | None = None) -> None:
        """Close now; replies of running calls will be dropped and counted. ``limit`` is one that it has passed."""
        if not self.is_closed:
            if limit is not None:
                self._common.limits.note(limit, f"Closing the connection of {self.outbox.peer}", reason)
            elif reason:
                logger.info("Closing the connection of %s: %s", self.outbox.peer, reason)
            self._close(Event.BROKEN)

    def close_idle(self) -> None:
        """End it, since ``idle_timeout`` has passed. A peer that has asked learns that a call on its way is unread."""
        if self.outbox.closing_msgid is None:
            self.close("idle_timeout passed", Cell.IDLE_TIMEOUT)
        else:
            closing = f"Closing the connection of {self.outbox.peer}"
            self._common.limits.note(Cell.IDLE_TIMEOUT, closing, "idle_timeout passed")
            self.stop_reading()

    def _close(self, event: Event) -> None:
        common, number = self._common, self.number
        is_adopted = number in common.adopted
        self._leave()
        self._let_go(event)
        if number and common.on_copy_ended is not None:
            end_for_all(self._socket)
        self._socket.close()
        if self._common.follower is not None:
            self._common.follower.note_closed(self.outbox)
        if is_adopted:
            common.on_closed(self)
        elif number and common.on_copy_ended is not None:
            common.on_copy_ended(number)

    def _let_go(self, event: Event) -> None:
        """Stop watching the socket, and leave the worker's connections."""
        self._state = next_state(self._state, event)
        self.inbox.close()
        self.outbox.close()
        self._common.forget(self)

    def leave_to_parent(self) -> None:
        """Leave the connection to the parent, in a forked child; replies are dropped."""
        self._socket.close()
        self.outbox.is_closed = True

    # -- moving

    @property
    def is_movable(self) -> bool:
        """Whether it can go on in another worker: it is open, and this worker has not begun to end it."""
        return (self._state, Event.GIVEN) in TRANSITIONS and (self._state is not State.ENTERING or self.inbox.may_move)

    def picture(self, waiting: list[Any]) -> Given:
        """Return what another process needs to go on with it, beside the socket; change nothing.

        ``waiting`` are its calls that were in the engine's queue. Raises as `Inbox.content` does.
        """
        is_eof = self._state is State.HALF_CLOSED
        outbox, is_entering = self.outbox, self._state is State.ENTERING
        content = self.inbox.content(waiting)
        waited = 0.0 if waiting or is_entering else self.inbox.waited
        unsent, until = outbox.unsent_content(), self._common.blamed.get(self, 0.0)
        return Given(outbox.peer, is_eof, content, unsent, outbox.identity, is_entering, waited, until)

    @property
    def family(self) -> int:
        """The address family of its socket."""
        return self._socket.family

    def fileno(self) -> int:
        """Return its socket's descriptor."""
        return self._socket.fileno()

    def move(self, forward: Callable[[list[bytes]], None]) -> _socket.socket:
        """Stop here for good, and return the open socket.

        ``forward`` gets the replies of calls that still run here.
        """
        if self._common.follower is not None:
            self._common.follower.note_given(self.outbox, self.fileno())
        self.outbox.forward_to(forward)
        self._let_go(Event.GIVEN)
        return self._socket

    def stop_awaiting(self, call: tuple[int, int]) -> bool:
        """Note that an awaited call has ended elsewhere. Returns False if it was not awaited any more."""
        number = self.awaited.get(call, 0)
        if number > 1:
            self.awaited[call] = number - 1
        elif number:
            del self.awaited[call]
        return number > 0

    def take_over(self, given: Given, awaited: list[list[int]]) -> None:
        """Go on where another worker has stopped; ``awaited`` are the calls that still run elsewhere."""
        if self._state is State.ENTERING:
            self.inbox.start(self, given.input)
            return
        if awaited:
            self.awaited = Counter((serial, msgid) for serial, msgid in awaited)
        self.outbox.expect([msgid for _, msgid in awaited])
        if given.unread_until > self._common.clock():
            self._blame(given.unread_until)
        self.inbox.restore(given.input, given.waited)
        self.outbox.send_first(given.output)
        if given.is_eof and not self.is_closed:
            self._stop_reading(Event.PEER_ENDED)


_TOO_MANY_PENDING = (Cell.MAX_PENDING_CALLS, "it has more unanswered calls than max_pending_calls")
_NO_GREENLET = (Cell.MAX_GREENLETS, "max_greenlets calls are running")
_TOO_MUCH_UNREAD = (Cell.UNREAD_REPLIES, f"it leaves more than {HIGH_WATER_BYTES} bytes of replies unread")

_NONE_AWAITED: Counter[tuple[int, int]] = Counter()  # of a connection that has not moved; never changed

#: What a connection does when it hears of something.
_HANDLERS: dict[Happened, Callable[..., None]] = {
    Happened.PEER_ENDED: Connection._on_peer_ended,
    Happened.BROKEN: Connection.close,
    Happened.UNDECODABLE: lambda self: self._stop(ENDED),
    Happened.INCOMPLETE: lambda self: self._common.note_time(self._common.partial, self),
    Happened.COMPLETE: lambda self: self._common.partial.pop(self, None),
    Happened.HEARD_LAST: Connection._on_heard_last,
    Happened.PENDING: lambda self: self._stop(PENDING, *_TOO_MANY_PENDING),
    Happened.NO_GREENLET: lambda self: self._stop(TURN, *_NO_GREENLET),
    Happened.OTHERS_TURN: lambda self: self._stop(TURN),
    Happened.ITS_TURN: lambda self: self._go_on(TURN),
    Happened.HELD_BACK: lambda self: self._stop(HELD),
    Happened.LET_GO: lambda self: self._go_on(HELD),
    Happened.ANSWERED: Connection._on_answered,
    Happened.UNSENT: lambda self: self._common.note_time(self._common.unsent, self),
    Happened.SENT: lambda self: self._common.unsent.pop(self, None),
    Happened.HIGH_WATER: Connection._on_high_water,
    Happened.LOW_WATER: Connection._on_low_water,
}
