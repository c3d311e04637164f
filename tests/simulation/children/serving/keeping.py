"""How the connections of a made-up worker outlive it: its master keeps copies, and a ledger has the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rpccluster.ipc.messages import Collect, Drop, Keep, Noted
from rpccluster.ledger.layout import Flag
from rpccluster.ledger.why import KIND_OF_SOCKET, LEDGER_FULL
from rpccluster.system.stream_counters import counts_unix_sockets

from ...world.process import NEVER, Died
from ..wire import LOST, copy_of
from .ledger import Ledger, Note

if TYPE_CHECKING:
    from .connections import Connection
    from .worker import Worker

__all__ = ["Keeping"]

COLLECT_SECONDS = 0.1


class Keeping:
    """The ledger of one worker, and its end of the channel of copies. ``asks_at`` is when it has that read."""

    def __init__(self, worker: Worker, part: Any) -> None:
        self._worker = worker
        self._world = worker.world
        self._random = worker.world.plan.chance(f"ledger {worker.world.number_births}")
        self.fuse: int | None = None  # how many words are written until it dies
        self.ledger = Ledger(part.ledger, part.ledger_shape, self._act, is_soon_low=self._random.random() < 0.5)
        self._channel = copy_of(part.copies)
        self._ended: list[int] = []
        self._numbers = 0
        self.asks_at = NEVER

    def _act(self) -> None:
        if self.fuse is not None and not self._world.is_calm:
            self.fuse -= 1
            if self.fuse < 0:
                self._world.count("fault", "died at its ledger")
                raise Died

    def new_number(self) -> int:
        """Return a number that no other connection has."""
        self._numbers += 1
        return self._worker.serial << 32 | self._numbers

    def note(self, connection: Connection, input: bytes = b"", output: bytes = b"") -> str:
        """Let the ledger have a connection from now on. Returns why it has not; empty if it has."""
        if not counts_unix_sockets():
            return KIND_OF_SOCKET
        is_full = not self._world.is_calm and self._random.random() < 0.03
        place = None if is_full else self.ledger.new_record()
        if place is None:
            return LEDGER_FULL
        note = Note(self.ledger, connection.number, place, connection.socket)
        note.prepare(input, output, [msgid for _, msgid in connection.awaited.elements()])
        note.begin()
        connection.note = note
        if not self._world.is_calm and self._random.random() < 0.03:
            note.put_flags(Flag.BARE_INPUT)
        return ""

    def keep(self, connection: Connection) -> None:
        """Have a copy kept of the socket of an accepted connection, of which nothing was read."""
        connection.number = self.new_number()
        why_not = self.note(connection)
        if why_not:
            self._worker.say(self._channel, Noted(connection.number, False, why_not))
        else:
            keep = Keep(connection.number, [[connection.number, [], []]])
            self._worker.say(self._channel, keep, [connection.socket.fileno()])
            connection.is_kept = True
        self._ask_soon()

    def keep_adopted(self, connection: Connection, input: bytes, output: bytes) -> None:
        """Note down a connection that was adopted: its master has kept a copy, and what was given."""
        connection.is_kept = True
        why_not = self.note(connection, input, output)
        connection.is_kept = not why_not
        self._worker.moves.say(Noted(connection.number, not why_not, why_not))

    def note_ended(self, number: int) -> None:
        """Have the copy of an accepted connection closed, soon."""
        self._ended.append(number)
        self._ask_soon()

    def _ask_soon(self) -> None:
        self.asks_at = min(self.asks_at, self._world.now + COLLECT_SECONDS)

    def look(self) -> None:
        """Have the channel of copies read, if it is time."""
        if self._world.now >= self.asks_at:
            self.asks_at = NEVER
            if self._ended:
                ended, self._ended = self._ended, []
                self._worker.say(self._channel, Drop(ended))
            self._worker.moves.say(Collect())

    def covers(self, connection: Connection) -> bool:
        """Return whether a connection goes on if this process ends now."""
        parent, note = self._worker.parent, connection.note
        if parent is None or not parent.is_alive or not connection.is_kept or connection.is_eof:
            return False
        return note is None or not note.flags

    def leave(self, connection: Connection) -> None:
        """Note what must become of a connection that goes on, since this process has ended."""
        world, note = self._world, connection.note
        world.on_their_way.add(connection.client)
        if note is None:
            return
        world.orphans |= note.unanswered
        world.replied |= {msgid for msgid, kind in note.published.items() if kind != LOST}
        if self._worker.has_crashed and self.ledger.current == note.number and note.first_unbegun is not None:
            at = connection.client, note.first_unbegun
            if at in world.crashed_while_reading:
                world.excuse(
                    connection.client, "two workers have crashed while they read the same message", is_torn=True
                )
            world.crashed_while_reading.add(at)

    def release(self) -> None:
        """Close all, as the kernel does at the worker's end."""
        self.ledger.close()
        self._channel.close()
