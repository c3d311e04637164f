"""Each verb of a queue, as steps: how it is numbered, what is repeated, and what becomes of its lane and its items.

Nobody knows what a get has brought that ends without an answer. So its lane is kept, and its call is repeated with the
same number before the next get, or by `look`: the keeper answers with the same items. `look` also tells the keeper that
the sessions which hold items live, if it was started anew, or the connection was lost.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rpccluster.client.core.queues.lanes import Lane, Lanes
from rpccluster.client.core.queues.steps import Call, Pause, Steps
from rpccluster.client.core.queues.taken import Dead, Holding, Peeked, Taken
from rpccluster.client.core.queues.tries import FAILURES, Failed, Tries, is_answer
from rpccluster.client.core.queues.values import PLAIN, UNASKED_BYTES, PutOptions, size_of
from rpccluster.errors import LeaseLost, RPCClusterError

__all__ = ["Verbs"]

_REST_BYTES = 1024  # of a put, beside its values


class Verbs:
    """The verbs of the queue ``name`` in one process.

    A keeper may be away for ``patience`` seconds. ``connection`` tells the present connection.
    """

    def __init__(self, name: str, patience: float, clock: Callable[[], float], connection: Callable[[], Any]) -> None:
        self.name = name
        self.is_closed = False
        self.holding = Holding()
        self._patience = patience
        self._limit: float | None = None  # the keeper's max_message_size, once it was asked
        self._clock = clock
        self._connection = connection
        self._puts = Lanes()
        #: Returns a lane that has the number of a put; `end_put` or `put_by` comes next.
        self.begin_put: Callable[[], Lane] = self._puts.take
        #: Notes that the put of a lane was answered.
        self.end_put: Callable[[Lane], None] = self._puts.give_back
        self._gets = Lanes()
        self._left: deque[Taken] = deque()  # were brought by a get that had been given up

    @property
    def needs_a_look(self) -> bool:
        """Whether `look` has something to do, now or after a restart of the keeper."""
        return bool(self.holding) or self._gets.has_unfinished

    # -- how each is asked

    def _ask(
        self,
        method: str,
        params: Callable[[float | None], tuple[Any, ...]],
        wait: float = 0.0,
        before: Failed | None = None,
    ) -> Steps[Any]:
        """Ask until there is an answer. ``params`` get the seconds that the keeper may still wait.

        ``before`` is how a first try has ended, which was made already.
        """
        clock = self._clock
        tries = Tries(wait, self._patience, clock() if before is None else before.began_at)
        error = None if before is None else before.error
        while True:
            if error is None:
                now = clock()
                try:
                    return (yield Call(method, params(tries.wait_left(now)), tries.begin(now)))
                except FAILURES as found:
                    error = found
            pause = tries.failed(error, clock())
            if self.is_closed:
                raise error
            error = None
            yield Pause(pause)

    def _ask_plainly(self, method: str, *params: Any, wait: float = 0.0) -> Steps[Any]:
        return self._ask(method, lambda _: (self.name, *params), wait)

    # -- put

    def put(self, value: Any, options: PutOptions, timeout: float | None) -> Steps[Any]:
        """Put one value. Returns its id."""
        size = size_of(value)
        if size > UNASKED_BYTES:
            yield from self._check_size(size)
        return (yield from self._put("queue.put", value, options, timeout))

    def put_many(self, values: Iterable[Any], options: PutOptions, timeout: float | None) -> Steps[list[Any]]:
        """Put values, all or none. Returns their ids."""
        values = list(values)
        size = sum(map(size_of, values))
        if size > UNASKED_BYTES:
            yield from self._check_size(size)
        return (yield from self._put("queue.put_many", values, options, timeout)) if values else []

    def put_together(self, values: list[Any], size: int) -> Steps[list[Any]]:
        """Put values of ``size`` bytes that were put one by one, if that can be done now. Returns their ids.

        Raises `QueueFull` if there is no room for all, ValueError if one message cannot hold them.
        """
        yield from self._check_size(size)
        return (yield from self._put("queue.put_many", values, PLAIN, 0))

    def _check_size(self, size: int) -> Steps[None]:
        limit = yield from self._known_limit()
        if size > limit - _REST_BYTES:
            most = limit - _REST_BYTES
            raise ValueError(f"found {size} bytes to put, expected at most {most}, by max_message_size of the keeper")

    def _known_limit(self) -> Steps[float]:
        if self._limit is None:
            self._limit = yield from self._ask_limit()
        return self._limit

    def _ask_limit(self) -> Steps[float]:
        try:
            rows = yield from self._ask("queue.list", lambda _: ())
        except RPCClusterError as error:
            if not is_answer(error):
                raise
            return math.inf  # the keeper does not tell this caller; the client's own limit holds
        return min((row.get("max_message_size", math.inf) for row in rows if isinstance(row, dict)), default=math.inf)

    def _put(self, method: str, value: Any, options: PutOptions, timeout: float | None) -> Steps[Any]:
        return self.put_by(self.begin_put(), options, method, value, timeout)

    def put_by(
        self,
        lane: Lane,
        options: PutOptions,
        method: str,
        value: Any,
        timeout: float | None,
        before: Failed | None = None,
    ) -> Steps[Any]:
        """Make the put of ``lane``, again if its first try was ``before``."""
        numbered = options.numbered(lane)

        def params(left: float | None) -> tuple[Any, ...]:
            return self.name, value, numbered if left is None else {**numbered, "timeout": left}

        try:
            answer = yield from self._ask(method, params, _seconds(timeout), before)
        except RPCClusterError as error:
            if is_answer(error):
                self._puts.give_back(lane)
            raise
        self._puts.give_back(lane)
        return answer

    # -- get

    def get(self, count: int, timeout: float | None, ack: Sequence[Taken], holder: Any) -> Steps[list[Taken]]:
        """Take up to ``count`` items, and ack others on the way. Returns none if there are none within ``timeout``."""
        ends_at = self._clock() + _seconds(timeout)
        yield from self._finish()
        if self._left:
            if ack:
                yield from self.ack(ack, None)
            return self._take_left(count, holder)
        return (yield from self.get_by(self._gets.take(count), ends_at, ack, holder))

    def get_until(self, ends_at: float, count: int, holder: Any) -> Steps[list[Taken]]:
        """Go on with gets after one that has brought nothing."""
        return self.get_by(self._gets.take(count), ends_at, (), holder)

    @property
    def has_brought(self) -> bool:
        """Whether a get that was given up may have brought items, which come first."""
        return bool(self._left) or self._gets.has_unfinished

    def begin_get(self, count: int, ack: Sequence[Taken]) -> tuple[Lane, dict[str, Any]]:
        """Number a get. Returns its lane, and its options on the wire; `end_get` or `get_by` comes next."""
        lane = self._gets.take(count)
        return lane, self._get_options(lane, ack)

    def end_get(self, lane: Lane, rows: Any, ack: Sequence[Taken], holder: Any) -> list[Taken]:
        """Take what the get of ``lane`` was answered with."""
        found = [Taken(row[0], row[1], row[2], lane, holder) for row in rows]
        self.holding.change(found, ack)
        self._gets.give_back(lane)
        return found

    def fail_get(self, lane: Lane, error: BaseException) -> None:
        """Note that the get of ``lane`` ended with ``error``; if that is no answer, it may have brought items."""
        self._gets.give_back(lane) if is_answer(error) else self._gets.leave(lane)

    def get_by(
        self, lane: Lane, ends_at: float, ack: Sequence[Taken], holder: Any, before: Failed | None = None
    ) -> Steps[list[Taken]]:
        """Make the get of ``lane``, again if its first try was ``before``, and then others until ``ends_at``."""
        count = lane.count
        while True:
            found = yield from self._get(lane, ends_at, ack, holder, before)
            if found or self._clock() >= ends_at:
                return found
            lane, ack, before = self._gets.take(count), (), None

    def _take_left(self, count: int, holder: Any) -> list[Taken]:
        found: list[Taken] = []
        while self._left and len(found) < count:
            taken = self._left.popleft()
            taken.holder = holder
            found.append(taken)
        return found

    def _get(
        self, lane: Lane, ends_at: float, ack: Sequence[Taken], holder: Any, before: Failed | None
    ) -> Steps[list[Taken]]:
        began_at = self._clock() if before is None else before.began_at
        try:
            rows = yield from self._ask_items(lane, max(0.0, ends_at - began_at), ack, before)
        except BaseException as error:
            if isinstance(error, LeaseLost):
                self._forget(ack)
            self.fail_get(lane, error)
            raise
        return self.end_get(lane, rows, ack, holder)

    def _ask_items(self, lane: Lane, wait: float, ack: Sequence[Taken], before: Failed | None = None) -> Steps[Any]:
        """Make the last call of ``lane``, or repeat it."""
        options = self._get_options(lane, ack)
        return self._ask("queue.get", lambda left: (self.name, {**options, "timeout": left}), wait, before)

    def _get_options(self, lane: Lane, ack: Sequence[Taken]) -> dict[str, Any]:
        options = dict(lane.numbered)
        if lane.count != 1:
            options["n"] = lane.count
        if ack:
            options["ack"] = [(taken.id, taken.attempt) for taken in ack]
        lane.connection = self._connection()
        return options

    def _finish(self) -> Steps[None]:
        """Learn what gets have brought that were given up."""
        while True:
            lane = self._gets.take_unfinished()
            if lane is None:
                return
            try:
                rows = yield from self._ask_items(lane, 0.0, ())
            except BaseException as error:
                self.fail_get(lane, error)
                raise
            self._left.extend(self.end_get(lane, rows, (), None))

    def look(self) -> Steps[None]:
        """Finish what was given up, and let the sessions that hold items be known over a new connection."""
        yield from self._finish()
        lanes = self.holding.lanes()
        if lanes:
            yield from self._ask("rpc.ping", lambda _: ())
        for lane in lanes:
            if lane.connection is not self._connection():
                yield from self._come_back(lane)

    def _come_back(self, lane: Lane) -> Steps[None]:
        """Ask for no item, so that the keeper knows the session over the present connection."""
        connection = self._connection()
        options = {"session": lane.session, "n": 0, "timeout": 0}
        yield from self._ask_plainly("queue.get", options)
        lane.connection = connection

    # -- what becomes of an item

    def ack(self, taken: Sequence[Taken], token: int | None) -> Steps[None]:
        """Let the keeper forget items, which are done."""
        options = {} if token is None else {"token": token}
        yield from self._settle(taken, "queue.ack", [list(each.key) for each in taken], options)

    def nack(self, taken: Taken, delay: float | None, error: str | None, is_dead: bool) -> Steps[None]:
        """Give an item back, for another attempt, or for none."""
        given = {"delay": delay, "error": error, "dead": is_dead or None}
        options = {name: value for name, value in given.items() if value is not None}
        yield from self._settle([taken], "queue.nack", taken.id, taken.attempt, options)

    def touch(self, taken: Taken) -> Steps[None]:
        """Let the lease of an item begin anew."""
        try:
            yield from self._ask_plainly("queue.touch", taken.id, taken.attempt)
        except LeaseLost:
            self._forget([taken])
            raise

    def _settle(self, taken: Sequence[Taken], method: str, *params: Any) -> Steps[None]:
        try:
            yield from self._ask_plainly(method, *params)
        except LeaseLost:
            self._forget(taken)
            raise
        self._forget(taken)

    def _forget(self, taken: Iterable[Taken]) -> None:
        self.holding.change((), taken)

    def task_done(self, holder: Any) -> Steps[None]:
        """Ack the item that ``holder`` has held for longest. Raises ValueError if nobody holds any."""
        taken = self.holding.oldest(holder)
        if taken is None:
            raise ValueError("task_done() called too many times")
        yield from self.ack([taken], None)

    # -- the queue as a whole

    def join(self, timeout: float | None) -> Steps[None]:
        """Wait until every item is acked, or dead. Raises `CallTimeout` after ``timeout``."""
        yield from self._ask_plainly("queue.join", wait=_seconds(timeout) - (0 if timeout is None else self._patience))

    def peek(self, count: int) -> Steps[list[Peeked]]:
        """Look at items that are ready, in their order."""
        return [Peeked(*row[:3]) for row in (yield from self._ask_plainly("queue.peek", count))]

    def dead(self, count: int) -> Steps[list[Dead]]:
        """Look at dead items."""
        return [Dead(*row[:4]) for row in (yield from self._ask_plainly("queue.dead", count))]

    def retry(self, id: Any) -> Steps[int]:
        """Make a dead item, or all of them, ready again. Returns how many."""
        return (yield from self._ask_plainly("queue.retry", *(() if id is None else (id,))))

    def plain(self, verb: str) -> Steps[Any]:
        """Ask a verb that has no parameters."""
        return self._ask_plainly(f"queue.{verb}")


def _seconds(timeout: float | None) -> float:
    return math.inf if timeout is None else timeout
