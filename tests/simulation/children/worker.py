"""A made-up worker: a small script that does to its master what the real one does, by the real messages.

It boots slowly, or never; it accepts, gives and adopts connections, answers calls at once or later, beats or hangs,
obeys or not. It may end before any message and after any. Its states are the real worker's table.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
from collections import Counter, deque
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, Callable

from rpccluster.ipc.channel import Channel
from rpccluster.ipc.messages import (
    Accept,
    Adopted,
    BootFailed,
    CancelCall,
    Closed,
    DonorGone,
    Findings,
    Give,
    Inquire,
    Listen,
    Message,
    Propose,
    Ready,
    Refused,
    Release,
    Released,
    ReopenLogs,
    Reply,
    Retire,
    Switch,
    Switched,
    Vote,
    WantsToRetire,
)
from rpccluster.ipc.scoreboard import Cell, CommonCell, RowState
from rpccluster.system import MSG_NOSIGNAL, TELL_SIGNAL
from rpccluster.worker.lifecycle import Event, State, next_state

from ..plans.plan import BAD
from ..world.process import NEVER, Process
from ..world.world import World

if TYPE_CHECKING:
    from ..masters.master import Master

__all__ = ["ANSWERED", "CANCEL", "CANCELLED", "GAVE_UP", "LOST", "Connection", "Worker", "client_of_copy", "copy_of"]

ANSWERED, LOST, GAVE_UP, CANCELLED = b"+-!x"  # how a call is answered: done, its worker has died, its time is over, …
CALL = struct.Struct(">I")
CANCEL = 1 << 31  # beside the number of a call: its caller does not want it any more
REPLY = struct.Struct(">IB")
LOOK_SECONDS = 0.02
BEAT_SECONDS = 0.5


class Died(Exception):
    """The process has ended in the middle of a step."""


@dataclass(eq=False)
class Connection:
    """A connection that this worker serves; ``client`` is the number of whom it leads to."""

    client: int
    socket: socket.socket
    number: int = 0  # as the masters know it, once it has moved
    is_eof: bool = False
    waiting: list[int] = field(default_factory=list)  # calls that were read and have not begun
    running: dict[int, float] = field(default_factory=dict)  # until when
    awaited: Counter[tuple[int, int]] = field(default_factory=Counter)  # calls that run elsewhere

    @property
    def is_busy(self) -> bool:
        return bool(self.waiting or self.running or self.awaited)


class Worker(Process):
    """One worker. ``fuse`` is the number of acts until it dies; None: it does not."""

    noun = "worker"
    group_name = "workers"

    def __init__(self, world: World, pid: int, master: Master, assignment: Any) -> None:
        super().__init__(world, pid, master)
        self.slot, self.serial, self.row = assignment.slot, assignment.serial, assignment.row
        self.generation = assignment.generation
        self.is_bad = assignment.options.proc_name == BAD
        self.channel = copy_of(assignment.channel)
        self.moves = copy_of(assignment.part.connections)
        self.listeners = [_socket(os.dup(each.fileno())) for each in assignment.part.listeners]
        for channel in (self.channel, self.moves):
            world.watch(channel.fileno(), self)
        self.row[Cell.CONNECTION_LIMIT] = assignment.options.worker_connections
        self.state = State.BOOTING
        self.connections: dict[int, Connection] = {}  # by client
        self.unannounced: list[tuple[Give, int]] = []
        self.forwards: dict[tuple[int, int], float] = {}  # calls whose connection has moved: until when
        self.given = 0
        self.order: Retire | None = None
        self.gives_up_at = self._looks_at = self.ends_at = NEVER
        self.asks_at = NEVER  # to be replaced
        self.reason = ""
        self.hangs_until = 0.0
        self.fuse: int | None = None
        self.is_deaf = False  # to an order to retire
        self.retired_at = 0.0
        self.replied: dict[int, float] = {}  # calls whose connection has moved: when they were answered
        world.number_births += 1
        self.random = world.plan.chance(f"worker {world.number_births}")
        self.boots_at = world.now + world.plan.boot_seconds(self.random, 0.01, 2.0)
        if world.number_births not in world.plan.spared and not world.is_calm:
            self._draw_fate(world.plan.chance(f"fate {world.number_births}"))
        world.tell(self.name, f"is born for slot {self.slot}, generation {self.generation}")

    def _draw_fate(self, chance: Random) -> None:
        if chance.random() < 0.15:
            self.fuse = chance.randrange(1, 30)
        if chance.random() < 0.04:
            self.boots_at = self.world.now + 5.0 + 55.0 * chance.random()
        self.is_deaf = chance.random() < 0.03

    # -- time

    @property
    def is_hanging(self) -> bool:
        return self.world.now < self.hangs_until

    @property
    def wake_at(self) -> float:
        if self.state is State.BOOTING:
            return self.boots_at
        if self.state is State.GONE:
            return self.ends_at
        first = self.asks_at
        if self.state is State.RETIRING:
            first = min(first, self.gives_up_at, self._looks_at)
        if self.forwards:
            first = min(first, *self.forwards.values())
        for connection in self.connections.values():
            if connection.waiting or (connection.is_eof and not connection.is_busy):
                return self.world.now
            if connection.running:
                first = min(first, *connection.running.values())
        return first

    def hang(self, seconds: float) -> None:
        """Do nothing for so long; a beat is missed, too."""
        self.beat()
        self.hangs_until = self.resumes_at = self.world.now + seconds
        self.world.tell(self.name, f"hangs for {seconds:.1f} seconds")

    def beat(self) -> None:
        """Write the heartbeat that it would have written by now: nobody looks at it in between."""
        if self.state is not State.BOOTING and not self.is_hanging:
            now = self.world.now
            self.row[CommonCell.HEARTBEAT] = int((now - now % BEAT_SECONDS) * 1e9)

    # -- one step

    def step(self) -> None:
        try:
            if self.state is State.BOOTING:
                if self.channel.fileno() in self.world.come:
                    self._read_orders()
                if self.world.now >= self.boots_at:
                    self._boot()
                return
            if self.state is State.GONE:
                self._run_last_hook()
                return
            acts = self._due()
            self.random.shuffle(acts)
            for act in acts[: self.random.randrange(1, len(acts) + 1)]:
                act()
            if self.state is State.RETIRING:
                self._look()
        except Died:
            self.world.count("fault", "died in the middle")
            self.end(signum=signal.SIGSEGV)
        except SystemExit as error:
            self.end(code=error.code)  # type: ignore[arg-type]

    def _due(self) -> list[Callable[[], None]]:
        """Return what there is to do; some of it is done now, in any order."""
        come = self.world.come
        acts = [self._look_after_calls]
        if self.channel.fileno() in come or self.channel.has_unsent:
            acts.append(self._read_orders)
        if self.moves.fileno() in come or self.moves.has_unsent or self.unannounced:
            acts.append(self._read_moves)
        if any(listener.fileno() in come for listener in self.listeners):
            acts.append(self._accept)
        if any(each.socket.fileno() in come for each in self.connections.values()):
            acts.append(self._read_calls)
        return acts

    def _act(self) -> None:
        """Something is about to be done; it may be the last thing, or the one that is not done."""
        if self.fuse is not None and not self.world.is_calm:
            self.fuse -= 1
            if self.fuse < 0:
                raise Died

    def _boot(self) -> None:
        self._act()
        if self.is_bad:
            self._say(self.channel, BootFailed("service", "the service is at fault"))
            raise SystemExit(3)
        self._step_to(Event.BOOTED)
        self._say(self.channel, Ready(["work"]))
        self.beat()

    def _step_to(self, event: Event) -> None:
        before, self.state = self.state, next_state(self.state, event)
        self.world.count("worker", f"{before.value}, {event.value}")
        serves = self.state is State.SERVING
        self.row[CommonCell.STATE] = RowState.ACCEPTING if serves else RowState.NOT_ACCEPTING
        for listener in self.listeners:
            self.world.unwatch(listener.fileno())
            if serves:
                self.world.watch(listener.fileno(), self)

    def _say(self, channel: Channel, message: Message) -> None:
        self._act()
        self.world.count("message", type(message).__name__)
        channel.send(message)

    # -- what the master says

    def _read_orders(self) -> None:
        self._each(self.channel, self._act_on)
        if self.channel.is_closed:
            raise SystemExit(1)
        self.channel.flush()

    def _each(self, channel: Channel, heed: Callable[[Message, list[int]], object]) -> None:
        """Heed each message that has come; what was read and not heeded dies with the process."""
        found = deque(channel.receive())
        try:
            while found:
                message, descriptors = found.popleft()
                self.world.count("message", type(message).__name__)
                heed(message, descriptors)
        finally:
            for _, descriptors in found:
                for descriptor in descriptors:
                    os.close(descriptor)

    def _act_on(self, message: Message, descriptors: list[int]) -> None:
        if isinstance(message, Listen):
            self.listeners += [_socket(descriptor) for descriptor in descriptors]
            if self.state is State.SERVING:
                for listener in self.listeners[-len(descriptors) :]:
                    self.world.watch(listener.fileno(), self)
        elif isinstance(message, ReopenLogs):
            for descriptor in descriptors:
                os.close(descriptor)
        self._act()
        if isinstance(message, Accept):
            self._step_to(Event.MAY_ACCEPT)
        elif isinstance(message, Retire) and not self.is_deaf:
            self._retire(message)
        elif isinstance(message, Release):
            self._release(message)
        elif isinstance(message, Propose) and self.random.random() < 0.95:
            self._say(self.channel, Vote(message.attempt, "" if self.random.random() < 0.9 else "it does not suit"))
        elif isinstance(message, Inquire) and self.noun == "worker" and self.random.random() < 0.9:
            self._say(self.channel, Findings(message.number, {"what": message.what}))
        elif isinstance(message, Switch) and self.state is not State.BOOTING:
            self._say(self.channel, Switched(message.version))

    def take_signal(self, signum: int) -> None:
        if signum == signal.SIGTERM and self.state is not State.RETIRING:
            self.ask_to_retire("SIGTERM", 0.1)
        elif signum == TELL_SIGNAL and self.random.random() < 0.5:
            self.row[CommonCell.HUNG_IN] = 1

    def ask_to_retire(self, reason: str, seconds: float = 0.0) -> None:
        """Ask the master for a successor, in a moment."""
        self.reason, self.asks_at = reason, self.world.now + seconds

    # -- connections that come and go

    def _count(self) -> None:
        self.row[Cell.CONNECTIONS] = len(self.connections)

    def _accept(self) -> None:
        for listener in self.listeners if self.state is State.SERVING else []:
            with contextlib.suppress(BlockingIOError):
                self._act()
                sock, _ = listener.accept()
                self._add(Connection(client_of(sock), sock))
                self.row[Cell.ACCEPTED] += 1

    def _add(self, connection: Connection) -> None:
        connection.socket.setblocking(False)
        self.world.own(connection.client, self)
        self.connections[connection.client] = connection
        if connection.client in self.world.clients:
            self.world.clients[connection.client].is_accepted = True
        self.world.watch(connection.socket.fileno(), self)
        self._count()

    def _close(self, connection: Connection, why: str) -> None:
        self.world.excuse(connection.client, why)
        if connection.number:
            self._say(self.moves, Closed(connection.number))
        self._let_go(connection).close()

    def _let_go(self, connection: Connection) -> socket.socket:
        self.world.unwatch(connection.socket.fileno())
        del self.connections[connection.client], self.world.owners[connection.client]
        self._count()
        return connection.socket

    def _release(self, order: Release) -> None:
        self._read_moves()  # what has come
        chosen = [each for each in self.connections.values() if not each.is_eof][: order.number]
        for connection in chosen:
            self._act()
            self._give(connection)
        self._say(self.moves, Released(len(chosen)))

    def _give(self, connection: Connection) -> None:
        if not connection.number:
            self.given += 1
            connection.number = self.serial << 32 | self.given
        awaited = [list(call) for call in connection.awaited.elements()]
        awaited += [[self.serial, msgid] for msgid in connection.running]
        told = b"".join(CALL.pack(msgid) for msgid in connection.waiting)
        give = Give(connection.number, [], connection.is_eof, told, b"", awaited)
        packet = self.moves.pack(give, [connection.socket.fileno()])
        self._let_go(connection).detach()
        self.world.count("message", "Give")
        self.world.tell(self.name, f"gives the connection of client {connection.client}")
        self.world.on_their_way.add(connection.client)
        self.moves.post(packet)
        self.row[Cell.HANDED_OVER] += 1
        for msgid, until in connection.running.items():
            self.forwards[connection.number, msgid] = until

    def _read_moves(self) -> None:
        self._each(self.moves, self._hear)
        self.moves.flush()
        while self.unannounced and not self.moves.has_unsent:
            self._begin(*self.unannounced.pop(0))

    def _hear(self, message: Message, descriptors: list[int]) -> None:
        if isinstance(message, Give):
            self._take(message, descriptors)
        elif isinstance(message, Reply):
            self._take_reply(message)
        elif isinstance(message, DonorGone):
            self._note_lost(message)
        elif isinstance(message, CancelCall):
            self._cancel_moved(message)

    def _take(self, give: Give, descriptors: list[int]) -> None:
        try:
            self._act()
            if self.state is State.GONE or not descriptors or (not self.world.is_calm and self.random.random() < 0.01):
                for descriptor in descriptors:
                    os.close(descriptor)
                self._say(self.moves, Refused(give.cid))
                return
            self._say(self.moves, Adopted(give.cid))
        except Died:
            for descriptor in descriptors:
                with contextlib.suppress(OSError):
                    os.close(descriptor)
            raise
        self.unannounced.append((give, descriptors[0]))

    def _begin(self, give: Give, descriptor: int) -> None:
        sock = socket.socket(fileno=descriptor)
        client = client_of(sock)
        self.row[Cell.ADOPTED] += 1
        self.world.on_their_way.discard(client)
        connection = Connection(client, sock, give.cid, give.is_eof)
        connection.waiting = [msgid for (msgid,) in CALL.iter_unpack(give.input)]
        connection.awaited = Counter((serial, msgid) for serial, msgid in give.awaited)
        self.world.tell(self.name, f"adopts the connection of client {client}")
        self._add(connection)
        if self.order is not None and self.order.whole_cluster:
            connection.is_eof = True

    def _by_number(self, number: int) -> Connection | None:
        return next((each for each in self.connections.values() if each.number == number), None)

    def _take_reply(self, reply: Reply) -> None:
        connection = self._by_number(reply.cid)
        if connection is None:
            self._say(self.moves, reply)
            return
        msgid, _ = REPLY.unpack(reply.data)
        if self._stop_awaiting(connection, (reply.serial, msgid)):
            self._answer(connection, reply.data)

    def _stop_awaiting(self, connection: Connection, call: tuple[int, int]) -> bool:
        if not connection.awaited[call]:
            return False
        connection.awaited[call] -= 1
        connection.awaited += Counter()
        return True

    def _note_lost(self, gone: DonorGone) -> None:
        for connection in list(self.connections.values()):
            if not connection.number or gone.cid not in (0, connection.number):
                continue
            for serial, msgid in [*connection.awaited.elements()]:
                if serial == gone.serial or (gone.is_and_older and serial < gone.serial):
                    self._stop_awaiting(connection, (serial, msgid))
                    self._answer(connection, REPLY.pack(msgid, LOST))

    # -- calls

    def _read_calls(self) -> None:
        for connection in list(self.connections.values()):
            if connection.is_eof:
                continue
            self._act()
            try:
                data = connection.socket.recv(4096)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            if not data:
                connection.is_eof = True
                self.world.unwatch(connection.socket.fileno())
                self._pass_on_cancel(connection, None)
            for (number,) in CALL.iter_unpack(data):
                if number & CANCEL:
                    self._cancel(connection, number & ~CANCEL)
                else:
                    connection.waiting.append(number)

    def _cancel(self, connection: Connection, msgid: int) -> None:
        """End a call that waits or runs here, or have it ended where it runs; it may have ended before."""
        if msgid in connection.waiting:
            connection.waiting.remove(msgid)
        elif connection.running.pop(msgid, None) is None:
            self._pass_on_cancel(connection, msgid)
            return
        self._answer(connection, REPLY.pack(msgid, CANCELLED))

    def _pass_on_cancel(self, connection: Connection, only: int | None) -> None:
        """Tell the workers that run calls of this connection to end one; None: all, since their caller has gone."""
        for serial, msgid in list(connection.awaited):
            if only in (None, msgid):
                self._say(self.moves, CancelCall(connection.number, serial, msgid, only is None))

    def _cancel_moved(self, message: CancelCall) -> None:
        """End a call whose connection has moved, unless its caller has gone and the method goes on then."""
        may_end = not message.is_gone or self.random.random() < 0.5
        if may_end and self.forwards.pop((message.cid, message.msgid), None) is not None:
            self._reply(message.cid, message.msgid, CANCELLED)

    def _look_after_calls(self) -> None:
        now = self.world.now
        for connection in list(self.connections.values()):
            for msgid in [msgid for msgid, until in connection.running.items() if now >= until]:
                del connection.running[msgid]
                self._answer(connection, REPLY.pack(msgid, ANSWERED))
            if connection.waiting and self.random.random() < 0.8:
                for msgid in connection.waiting:
                    self._act()
                    self.world.begin_call(msgid, self)
                    connection.running[msgid] = now + self._duration()
                connection.waiting = []
            if connection.is_eof and not connection.is_busy:
                self._close(connection, "its client, or the cluster, has ended it")
        for (number, msgid), until in list(self.forwards.items()):
            if now >= until:
                del self.forwards[number, msgid]
                self._reply(number, msgid, ANSWERED)
        if now >= self.asks_at:
            self.asks_at = NEVER
            if self.state is not State.RETIRING:
                self._say(self.channel, WantsToRetire(self.reason))

    def _reply(self, number: int, msgid: int, kind: int) -> None:
        """Answer a call whose connection has moved."""
        self._say(self.moves, Reply(number, self.serial, REPLY.pack(msgid, kind)))
        self.replied[msgid] = self.world.now

    def _duration(self) -> float:
        kind = self.random.random()
        return 0.0 if kind < 0.3 else self.random.random() * (0.4 if kind < 0.8 else 6.0)

    def _answer(self, connection: Connection, data: bytes) -> None:
        self._act()
        with contextlib.suppress(OSError):
            connection.socket.send(data, MSG_NOSIGNAL)

    # -- its end

    def _retire(self, order: Retire) -> None:
        self._step_to(Event.MUST_RETIRE)
        if self.state is State.GONE:
            return
        now = self.world.now
        self.retired_at = self.retired_at or now
        self.order = order
        self.gives_up_at = min(self.gives_up_at, now + order.graceful_seconds)
        self._looks_at = now + LOOK_SECONDS
        if order.whole_cluster:
            for connection in self.connections.values():
                connection.is_eof = True
                self.world.unwatch(connection.socket.fileno())
                self.world.excuse(connection.client, "the cluster stops")

    def _look(self) -> None:
        now = self.world.now
        assert self.order is not None
        if now >= self.gives_up_at:
            self._give_up()
        if not self.has_work and not self.order.stays:
            self._finish()
        self._looks_at = self._next_look()

    @property
    def has_work(self) -> bool:
        """Whether it has connections, or answers of calls whose connections have moved."""
        return bool(self.connections or self.forwards or self.moves.has_unsent or self.unannounced)

    def _finish(self) -> None:
        """Adopt nothing more, and run the service's last hook, which may take a moment."""
        self._step_to(Event.FINISHED)
        self.ends_at = self.world.now + self.random.choice((0.0, 0.0, 0.5)) * self.random.random()
        if self.ends_at == self.world.now:
            raise SystemExit(0)

    def _run_last_hook(self) -> None:
        for act in self._due():
            act()
        if self.world.now >= self.ends_at:
            raise SystemExit(0)

    def _next_look(self) -> float:
        """It looks at itself all the time; here only when there may be something to see."""
        return NEVER if self.connections or self.forwards else self.world.now + 0.2

    def _give_up(self) -> None:
        """Answer what still runs with an error; connections are served on, with as much time again."""
        for connection in list(self.connections.values()):
            for msgid in list(connection.running):
                del connection.running[msgid]
                self._answer(connection, REPLY.pack(msgid, GAVE_UP))
        for number, msgid in list(self.forwards):
            del self.forwards[number, msgid]
            self._reply(number, msgid, GAVE_UP)
        assert self.order is not None
        self.gives_up_at = self.world.now + (self.order.graceful_seconds or LOOK_SECONDS)

    def release(self) -> None:
        for connection in list(self.connections.values()):
            self.world.excuse(connection.client, f"{self.name} has ended", is_torn=True)
            self.world.unwatch(connection.socket.fileno())
            connection.socket.close()
            del self.world.owners[connection.client]
        self.connections.clear()
        for _, descriptor in self.unannounced:
            with socket.socket(fileno=descriptor) as sock:
                self.world.excuse(client_of(sock), f"{self.name} has ended", is_torn=True)
        for channel in (self.channel, self.moves):
            self.world.unwatch(channel.fileno())
            channel.close()
        for listener in self.listeners:
            self.world.unwatch(listener.fileno())
            listener.close()


def client_of(sock: socket.socket) -> int:
    """Return the number of the client to whom a connection leads, by the name that the client has bound."""
    return int(sock.getpeername().rpartition(b"-")[2])


def client_of_copy(descriptor: int) -> int:
    """Return the number of the client to whom the connection leads of which ``descriptor`` is a copy."""
    with socket.socket(fileno=os.dup(descriptor)) as sock:
        return client_of(sock)


def _socket(descriptor: int) -> socket.socket:
    sock = socket.socket(fileno=descriptor)
    sock.setblocking(False)
    return sock


def copy_of(channel: Channel) -> Channel:
    """Copy one end of a channel, as a fork does."""
    return Channel(socket.socket(fileno=os.dup(channel.fileno())))
