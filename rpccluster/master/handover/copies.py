"""The copies of workers' sockets, and what becomes of connections when their worker dies. Runs in the master.

A worker that has a ledger sends a copy of each socket before it reads it. The master does nothing with a copy while
the worker lives. When it has ended, the kernel's counters and the ledger tell what the connection needs to go on, and
the broker gives it to another worker as it gives any connection.
"""

from __future__ import annotations

import socket
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

from rpccluster.address import TCPAddress
from rpccluster.ipc.messages import Give
from rpccluster.ipc.packets import Passing, close_all
from rpccluster.ipc.scoreboard import MOST_DESCRIPTORS
from rpccluster.ledger.reading import Counted, Ledger, Rebuilt
from rpccluster.ledger.why import DESCRIPTORS
from rpccluster.log import escaped, logger
from rpccluster.master.handover.crashes import Crash, Crashes
from rpccluster.master.handover.worker import LedgerOf
from rpccluster.protocol.closing import closing_request
from rpccluster.protocol.skip import may_resume
from rpccluster.rate_limit import LogLimiter, and_more
from rpccluster.system import room_beside
from rpccluster.system.stream_counters import stream_counters, unix_state

__all__ = ["Copies", "Copy", "Revived", "revive"]

NO_MESSAGE = b"\xc1"  # no MessagePack: the adopter closes the connection


class Copy:
    """A copy of the socket of one connection. There may be very many, so it is small.

    ``given`` is the message with which its owner has got it, and the memory file of that, until the owner's ledger has
    the connection.
    """

    __slots__ = ("given", "identity", "peer", "sock")

    def __init__(
        self, peer: Sequence[Any], identity: Sequence[str], descriptors: Sequence[int], given: Passing | None = None
    ) -> None:
        """``descriptors`` are the socket, and the memory file of ``given`` if it has one."""
        self.peer = tuple([shared(each) for each in peer])
        self.identity = tuple([shared(each) for each in identity]) if identity else ()
        self.sock = descriptors[0]
        self.given = None if given is None else (given, list(descriptors[1:]))

    @property
    def descriptors(self) -> list[int]:
        """The socket, and the memory file of ``given``."""
        return [self.sock] if self.given is None else [self.sock, *self.given[1]]

    def forget_given(self) -> None:
        """Close the memory file of ``given``, which is needed no more."""
        if self.given is not None:
            close_all(self.given[1])
            self.given = None


def shared(value: Any) -> Any:
    """Return ``value``, of which there is one alone if it is a string."""
    return sys.intern(value) if type(value) is str else value


class Revived(NamedTuple):
    """A connection that goes on: the message and the descriptors for the next owner."""

    message: Passing
    descriptors: list[int]


class Copies:
    """All copies, by the workers that own the connections, and by the numbers of these.

    They leave descriptors for everything else that a master does: a connection without a copy ends with its worker,
    but one that moves may not be lost for them.
    """

    def __init__(self, most: Callable[[], int] = lambda: room_beside(MOST_DESCRIPTORS)) -> None:
        """``most`` returns how many there may be."""
        self._copies: dict[Any, dict[int, Copy]] = {}
        self._bare: dict[Any, dict[int, str]] = {}  # why there is none of others, as far as that is known
        self._most = most
        self._count = 0
        self._limiter = LogLimiter()

    def keep(self, worker: Any, number: int, copy: Copy) -> None:
        """Keep ``copy`` of the connection ``number`` of ``worker``, or close it if there is no room."""
        self.keep_all(worker, {number: copy})

    def keep_all(self, worker: Any, copies: dict[int, Copy]) -> None:
        """Keep ``copies`` of connections of ``worker``, and close those for which there is no room."""
        self.drop_all(worker, copies)
        most = self._most()
        present = self._copies.setdefault(worker, {})
        for number in list(copies)[max(0, most - self._count) :]:
            self._refuse(worker, number, copies.pop(number), most)
        present.update(copies)
        self._count += len(copies)

    def _refuse(self, worker: Any, number: int, copy: Copy, most: int) -> None:
        close_all(copy.descriptors)
        self.note_bare(worker, number, DESCRIPTORS)
        is_due, held_back = self._limiter.should_log("no room")
        if is_due:
            told = "A connection would end with its worker: this process may hold copies of %d (RLIMIT_NOFILE)%s"
            logger.warning(told, most, and_more(held_back))

    def note_bare(self, worker: Any, number: int, why: str) -> None:
        """Note why there is no copy of a connection: one of `rpccluster.ledger.why`."""
        self._bare.setdefault(worker, {})[number] = why

    def note_noted(self, worker: Any, number: int, why_not: str = "") -> None:
        """Note that the ledger of ``worker`` has a connection; or why it cannot have it."""
        if why_not:
            self.drop(worker, number)
            self.note_bare(worker, number, why_not)
            return
        copy = self._copies.get(worker, {}).get(number)
        if copy is not None:
            copy.forget_given()

    def drop(self, worker: Any, number: int) -> None:
        """Close the copy of a connection that has ended, or has left ``worker``."""
        self.drop_all(worker, (number,))

    def drop_all(self, worker: Any, numbers: Collection[int]) -> None:
        """Close the copies of connections that have ended, or have left ``worker``."""
        bare = self._bare.get(worker)
        if bare:
            for number in numbers:
                bare.pop(number, None)
        copies = self._copies.get(worker)
        if copies:
            ended = [copies.pop(number) for number in numbers if number in copies]
            self._count -= len(ended)
            for copy in ended:
                close_all(copy.descriptors)

    def count(self, worker: Any) -> int:
        """Return of how many connections of ``worker`` there are copies."""
        return len(self._copies.get(worker, ()))

    def reasons(self, worker: Any) -> Counter[str]:
        """Return why there is no copy of other connections of ``worker``, and of how many, as far as that is known."""
        return Counter(self._bare.get(worker, {}).values())

    def take_all(self, worker: Any) -> dict[int, Copy]:
        """Take out the copies of all connections of ``worker``, which has ended."""
        self._bare.pop(worker, None)
        copies = self._copies.pop(worker, {})
        self._count -= len(copies)
        return copies

    def close(self) -> None:
        """Close all copies."""
        while self._copies:
            for copy in self._copies.popitem()[1].values():
                close_all(copy.descriptors)


def revive(
    copies: dict[int, Copy], ledger_of: LedgerOf, serial: int, crashes: Crashes, crash: Crash | None = None
) -> Iterator[Revived]:
    """Return those connections of the dead worker ``serial`` that can go on; close the copies of the others.

    Calls that it had begun are awaited from it: their adopter answers them, since it is dead. If the worker has ended
    by a fault of its own, ``crash`` says so, and ``crashes`` learn of the connections that it was at.
    """
    ledger = Ledger(ledger_of.read, ledger_of.shape)
    for number, copy in copies.items():
        message: Passing | None
        if copy.given is not None and number not in ledger:
            message = copy.given[0]  # its new owner has not touched it
        else:
            copy.forget_given()
            message = _rebuilt(number, copy, ledger, serial, crashes, crash)
        if message is None:
            close_all(copy.descriptors)
        else:
            yield Revived(message, copy.descriptors)


def _rebuilt(
    number: int, copy: Copy, ledger: Ledger, serial: int, crashes: Crashes, crash: Crash | None
) -> Give | None:
    counted = _counted(copy.sock, number, ledger)
    if counted is None:
        return None
    give = Give(number, list(copy.peer), False, b"", b"", [], identity=list(copy.identity))
    if number not in ledger:
        is_untouched = counted == Counted(0, 0)
        return give if is_untouched else None
    rebuilt = ledger.rebuild(number, counted)
    if rebuilt is None:
        return None
    next_border = -len(rebuilt.input) if counted.begins_anew else rebuilt.border
    is_again = crashes.follow_message(number, rebuilt.border, next_border)
    if crash is not None:
        _note_calls(number, copy, ledger, rebuilt, crashes, crash)
        if number == ledger.current and rebuilt.input:
            if is_again:
                told = "Closing the connection of %s: two workers have crashed while they read the same message of it"
                logger.warning(told, peer_of(copy.peer))
                return None
            crashes.note_message(number, next_border)
    input = NO_MESSAGE if may_resume(rebuilt.input) else rebuilt.input
    if rebuilt.closing_msgid is not None:
        input = closing_request(rebuilt.closing_msgid) + input
    awaited = [[serial, msgid] for msgid in rebuilt.lost]
    unread_until = crashes.unread_until(number)
    return give._replace(input=input, output=rebuilt.output, awaited=awaited, unread_until=unread_until)


def _note_calls(number: int, copy: Copy, ledger: Ledger, rebuilt: Rebuilt, crashes: Crashes, crash: Crash) -> None:
    """Note whether a worker has crashed at the calls of a connection.

    If a call has begun of the connection whose input was worked through, the worker was in that; else in any that has.
    """
    has_begun = bool(rebuilt.lost or rebuilt.notifications)
    if has_begun and (number == ledger.current or not ledger.is_at_call) and crashes.note_calls(number, crash):
        told = "Not reading from %s for %g seconds: three workers crashed at its calls within a minute, the last in %s"
        logger.warning(told, peer_of(copy.peer), crash.pause_seconds, escaped(crash.method))


def peer_of(address: Sequence[Any]) -> str:
    """Return the text that names a client in log lines."""
    if not address:
        return "a Unix socket"
    return str(TCPAddress(str(address[0]), int(address[1])))


def _counted(descriptor: int, number: int, ledger: Ledger) -> Counted | None:
    """Return what was read and written of a connection; None if it has ended, or nobody can tell."""
    sock = socket.socket(fileno=descriptor)
    try:
        if sock.family == socket.AF_UNIX:
            state = unix_state(sock)
            return ledger.counted(number, state.peek_offset) if state.is_open else None
        counters = stream_counters(sock)
        return Counted(counters.read, counters.written) if counters is not None and counters.is_open else None
    except OSError:
        return None
    finally:
        sock.detach()
