"""What the keeper serves: the methods of queues, as docs/queue.md has them. Runs in the keeper.

Each call becomes verbs of the engine (`rpccluster.queues.engine`), and is answered after their commit.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any, Callable

from rpccluster.config.sections.queues import QueuesOptions
from rpccluster.protocol.codec import Encoded, make_packer
from rpccluster.queues import engine
from rpccluster.service import Later, Service, WorkerInfo, rpc
from rpccluster.services.keeper.arguments import Options, count_of, name_of, numbered_of, pairs_of, whole_of
from rpccluster.services.keeper.desk import Desk, encoded
from rpccluster.services.keeper.sessions import Sessions
from rpccluster.services.keeper.waiting import NEVER, Call
from rpccluster.worker.current import present_sender
from rpccluster.worker.service.call_errors import Misfit

__all__ = ["Keeper"]

_HIGHEST = 9  # priority
_MOST_ITEMS = 100_000
_LARGEST = 2**63 - 1
_HEAD_BYTES = 64  # of a message, beside its items
_ITEM_BYTES = 24  # of an item in an answer, beside its value and its error


class Keeper(Service):
    """The methods of queues."""

    def __init__(self, options: QueuesOptions, desk: Desk, sessions: Sessions, close: Callable[[], object]) -> None:
        """``close`` is called at the end, after the last call."""
        self._options = options
        self._desk = desk
        self._sessions = sessions
        self._close = close
        self._pack = make_packer().pack
        self.is_retiring = False  # a successor takes over what has not begun

    def worker_stopping(self, worker: WorkerInfo) -> None:
        """End the engine."""
        self._close()

    # -- producers

    @rpc(name="queue.put", later=True)
    def put(self, name: Any, value: Any, options: Any = None) -> Later:
        """Add an item. Returns its id, after it is as durable as the configuration asks."""
        return self._put([name, value, options], [value], _first)

    @rpc(name="queue.put_many", later=True)
    def put_many(self, name: Any, values: Any, options: Any = None) -> Later:
        """Add items, all or none. Returns their ids."""
        if type(values) is not list or len(values) > _MOST_ITEMS:
            raise Misfit(TypeError(f"found no array of at most {_MOST_ITEMS} values"))
        return self._put([name, values, options], values, None)

    def _put(self, params: list[Any], values: list[Any], encode: Callable[[Any], Any] | None) -> Later:
        queue, numbered = sys.intern(name_of(params[0])), numbered_of(params[2])
        packed = self._packed(values)
        if numbered is not None:  # as most puts are
            verb, ends_at = engine.Put(queue, packed, *numbered), NEVER
        else:
            verb, ends_at = self._special(queue, packed, Options(params[2]))
        call = Call(queue, verb, self._later(params), ends_at)
        call.params, call.encode = params, encode
        return call.later if self.is_retiring else self._desk.put(call)

    def _special(self, queue: str, packed: list[bytes], options: Options) -> tuple[engine.Put, float]:
        session, seq = options.session(), options.number("seq") or 0
        if (session is None) != (seq == 0):
            raise Misfit(TypeError("found session without seq, or seq without session, expected both or neither"))
        verb = engine.Put(
            queue,
            packed,
            session,
            seq,
            options.seconds("delay") or 0.0,
            options.whole("priority", 0, _HIGHEST, 0),
            options.seconds("expires"),
            options.text("dedup_id"),
            options.text("group"),
            options.number("token"),
        )
        ends_at = options.ends_at(self._desk.clock())
        options.done()
        return verb, ends_at

    def _packed(self, values: list[Any]) -> list[bytes]:
        packed = list(map(self._pack, values))
        size, most = max(map(len, packed), default=0), self._options.max_message_size - _HEAD_BYTES
        if size > most:  # the message that gives it to a consumer would be too large
            raise Misfit(ValueError(f"found a value of {size} bytes, expected at most {most}"))
        return packed

    # -- consumers

    @rpc(name="queue.get", later=True)
    def get(self, name: Any, options: Any = None) -> Later:
        """Lease items for the session. Returns [[id, attempt, value]…], empty when the time is over."""
        queue, found = sys.intern(name_of(name)), Options(options)
        session, seq = found.session(), found.number("seq")
        n, ack = found.whole("n", 0, _MOST_ITEMS, 1), pairs_of("ack", found.take("ack"))
        ends_at = found.ends_at(self._desk.clock())
        found.done()
        later = self._later([name, options])
        if self.is_retiring:
            return later
        bound = self._sessions.bound(present_sender())
        if session is None:
            session = self._sessions.own(bound)
        else:
            self._sessions.bind(bound, session)
        n, most_bytes = self._room_of(n)
        call = Call(queue, engine.Get(queue, session, n, seq, ack, most_bytes), later, ends_at, bound)
        return self._desk.get(call)

    @rpc(name="queue.ack", later=True)
    def ack(self, name: Any, pairs: Any, options: Any = None) -> Later:
        """End items, each as [ID, ATTEMPT]. Returns true; LeaseLost names those that are others' by now."""
        found = Options(options)
        verb = engine.Ack(name_of(name), pairs_of("items", pairs), found.number("token"))
        found.done()
        return self._run(verb, [name, pairs, options])

    @rpc(name="queue.nack", later=True)
    def nack(self, name: Any, id_: Any, attempt: Any, options: Any = None) -> Later:
        """Give an item back; after its last attempt, or with ``dead``, it is dead with its ``error``. Returns true."""
        found = Options(options)
        delay, error, is_dead = found.seconds("delay") or 0.0, found.text("error") or "", found.flag("dead")
        found.done()
        verb = engine.Nack(name_of(name), _number("id", id_), _number("attempt", attempt), delay, error, is_dead)
        if not delay:
            self._desk.expect(verb.queue, 1)
        return self._run(verb, [name, id_, attempt, options])

    @rpc(name="queue.touch", later=True)
    def touch(self, name: Any, id_: Any, attempt: Any) -> Later:
        """Let the lease of an item begin anew. Returns true."""
        verb = engine.Touch(name_of(name), _number("id", id_), _number("attempt", attempt))
        return self._run(verb, [name, id_, attempt])

    # -- looking, and mending

    @rpc(name="queue.peek", later=True)
    def peek(self, name: Any, n: Any = 1) -> Later:
        """Look at the first ready items. Returns [[id, attempt, value]…]."""
        return self._run(engine.Peek(name_of(name), *self._room_of(count_of("n", n))), [name, n], encoded)

    @rpc(name="queue.dead", later=True)
    def dead(self, name: Any, n: Any = 100) -> Later:
        """Look at the first dead items. Returns [[id, attempts, value, error]…]."""
        number, most_bytes = self._room_of(count_of("n", n))
        of_one = self._options.max_message_size - _HEAD_BYTES - _ITEM_BYTES
        return self._run(engine.Dead(name_of(name), number, most_bytes), [name, n], partial(_dead, of_one))

    @rpc(name="queue.retry", later=True)
    def retry(self, name: Any, id_: Any = None) -> Later:
        """Make a dead item ready, or all. Returns their number."""
        number = None if id_ is None else _number("id", id_)
        return self._run(engine.Retry(name_of(name), number), [name, id_])

    @rpc(name="queue.purge", later=True)
    def purge(self, name: Any) -> Later:
        """Remove all items that no consumer has. Returns their number."""
        return self._run(engine.Purge(name_of(name)), [name])

    @rpc(name="queue.pause", later=True)
    def pause(self, name: Any) -> Later:
        """Give out nothing more until it is resumed. Returns true."""
        return self._run(engine.Pause(name_of(name)), [name])

    @rpc(name="queue.resume", later=True)
    def resume(self, name: Any) -> Later:
        """Give out items again. Returns true."""
        return self._run(engine.Resume(name_of(name)), [name])

    @rpc(name="queue.stats", later=True)
    def stats(self, name: Any) -> Later:
        """Count the items of a queue by their states, and the gets that wait."""
        queue = name_of(name)
        return self._run(engine.Stats(queue), [name], partial(self._stats, queue))

    def _stats(self, queue: str, answer: dict[str, Any]) -> dict[str, Any]:
        return {**answer, "waiting": self._desk.gets.number(queue)}

    @rpc(name="queue.join", later=True)
    def join(self, name: Any) -> Later:
        """Return true when every item was acked, or is dead."""
        queue = sys.intern(name_of(name))
        call = Call(queue, None, self._later([name]), NEVER)
        return call.later if self.is_retiring else self._desk.join(call)

    @rpc(name="queue.list", later=True)
    def list_(self) -> Later:
        """Return of each queue its name, its stats, and the size of the largest message."""
        later = self._later([])
        if not self.is_retiring:
            self._desk.tell_of_all(later, self._listed)
        return later

    def _listed(self, name: str, answer: dict[str, Any]) -> dict[str, Any]:
        return {"name": name, **self._stats(name, answer), "max_message_size": self._options.max_message_size}

    # -- all of them

    def _later(self, params: list[Any]) -> Later:
        """Make the answer of a call with ``params``; one that comes late begins anew in the successor."""
        later = Later()
        if self.is_retiring:
            later._again = params
        return later

    def _run(self, verb: engine.Verb, params: list[Any], encode: Callable[[Any], Any] | None = None) -> Later:
        later = self._later(params)
        return later if self.is_retiring else self._desk.run(verb, later, encode)

    def _room_of(self, n: int) -> tuple[int, int]:
        """Return how many of ``n`` items one answer may have, and how many bytes their values and errors."""
        most = self._options.max_message_size - _HEAD_BYTES
        n = min(n, most // (2 * _ITEM_BYTES))
        return n, most - n * _ITEM_BYTES

    # -- a successor

    def retire(self) -> None:
        """Begin nothing more, and leave what waits to the successor."""
        self.is_retiring = True
        self._desk.keeps = self._leave
        for call in self._desk.waiting():
            self._leave(call)

    def _leave(self, call: Call) -> None:
        """Let a call that waits begin anew in the successor, with the time that it has left."""
        now = self._desk.clock()
        left = None if call.ends_at == NEVER else max(0.0, call.ends_at - now)
        verb = call.verb
        if isinstance(verb, engine.Get):
            session = None if verb.session == call.connection.own else verb.session
            again = {"n": verb.n, "timeout": left, "session": session, "seq": verb.seq}
            call.later._again = [call.queue, {key: value for key, value in again.items() if value is not None}]
        elif call.params is not None:
            options = dict(call.params[2] or {}, timeout=left)
            call.later._again = [*call.params[:2], options]
        else:
            call.later._again = [call.queue]


def _dead(most_bytes: int, items: list[engine.DeadItem]) -> Encoded:
    """Make the answer of dead items; the error of a first one that is large itself is cut, so that it fits."""
    if items:
        room = max(0, most_bytes - len(items[0].value))
        error = items[0].error.encode(errors="surrogatepass")
        if len(error) > room:
            items = [items[0]._replace(error=error[:room].decode(errors="ignore")), *items[1:]]
    return encoded(items)


def _first(ids: Any) -> Any:
    return ids[0]


def _number(key: str, found: Any) -> int:
    return whole_of(key, found, 0, _LARGEST)
