"""The client of a keeper's queue, for threads and greenlets: the verbs of `rpccluster.client.core.queues`, performed.

One object serves several threads, and greenlets of several hubs. A forked child has sessions of its own: what its
parent holds stays the parent's. See docs/queue.md.
"""

from __future__ import annotations

import math
import threading
import time
import traceback
from collections.abc import Iterable, Sequence
from time import monotonic
from typing import Any, TypeVar

from rpccluster.address import Address
from rpccluster.client.core.exchange.outgoing import BOUNDS
from rpccluster.client.core.queues.steps import Call, Step, Steps
from rpccluster.client.core.queues.taken import Dead, Peeked, Taken
from rpccluster.client.core.queues.tries import FAILURES, Failed
from rpccluster.client.core.queues.values import PLAIN, PutOptions, is_small
from rpccluster.client.core.queues.verbs import Verbs
from rpccluster.client.sync.client import Client
from rpccluster.client.sync.queue_watch import Watches
from rpccluster.client.threads.forks import MARK, let_go_after, notice_fork
from rpccluster.errors import LeaseLost

__all__ = ["Item", "Queue"]

T = TypeVar("T")


class Item:
    """One item, which this process holds until its lease ends. `Queue.get` makes it.

    In a ``with`` block it is acked at the end, or given back if the block raises, unless the block has done so.
    """

    def __init__(self, queue: Queue, taken: Taken) -> None:
        self._queue = queue
        self._taken = taken

    @property
    def value(self) -> Any:
        """What was put."""
        return self._taken.value

    @property
    def id(self) -> Any:
        """The id that `Queue.put` has returned."""
        return self._taken.id

    @property
    def attempt(self) -> int:
        """How many times it has been given to a consumer, this time included."""
        return self._taken.attempt

    def __repr__(self) -> str:
        return f"<item {self.id} of {self._queue.name}, attempt {self.attempt}>"

    def ack(self, token: int | None = None) -> None:
        """Say that the item is done. Raises `LeaseLost` if it is not held any more, `StaleToken` for an old token."""
        self._queue.ack([self], token)

    def nack(self, delay: float | None = None, error: str | None = None, *, dead: bool = False) -> None:
        """Give the item back, for another attempt after ``delay`` seconds. Raises `LeaseLost`.

        ``error`` is kept with it, and shown by `Queue.dead` if this was its last attempt. With ``dead`` it was,
        whatever attempts are left.
        """
        self._queue._perform(self._queue._verbs.nack(self._taken, delay, error, dead))

    def touch(self) -> None:
        """Let the lease begin anew. Raises `LeaseLost`."""
        self._queue._perform(self._queue._verbs.touch(self._taken))

    def __enter__(self) -> Item:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if not self._queue._verbs.holding.has(self._taken):
            return
        if error is None:
            self.ack()
            return
        try:
            self.nack(error=traceback.format_exception_only(kind, error)[-1].strip())
        except LeaseLost:  # somebody else has it by now, and the block's own error says more
            pass


class Queue:
    """The queue ``name`` of the keeper at ``address``; it connects at its first call.

    ``timeout`` is how long, in seconds, a keeper may be away, or silent beyond what a call may wait for. Within it
    every call is repeated, with the same number, so that no item is put twice and none is lost. ``authkey`` is that of
    `rpccluster.Client`, as are the other parameters. Besides what each method names, all raise `NoSuchQueue`,
    `ConnectFailed`, `Lost`, `NotSent`, `CallTimeout`, `QueueDown`, and `RemoteError`.
    """

    def __init__(
        self,
        address: str | Address,
        name: str,
        *,
        authkey: Any = None,
        timeout: float = 10,
        connect_timeout: float | None = 5,
        max_message_size: int = BOUNDS.max_size,
        max_depth: int = BOUNDS.max_depth,
    ) -> None:
        options: dict[str, Any] = {"max_message_size": max_message_size, "max_depth": max_depth}
        if authkey is not None:
            options["authkey"] = authkey
        self.name = name
        self._client = Client(address, timeout=timeout, connect_timeout=connect_timeout, **options)
        self._patience = timeout
        self._begin()
        let_go_after(self)

    def _begin(self) -> None:
        self._own_verbs = Verbs(self.name, self._patience, monotonic, self._client._open_connection)
        self._watches = Watches(self._look)

    def __enter__(self) -> Queue:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} at {self._client.address}>"

    def close(self) -> None:
        """Close the connection. What this process holds goes to other consumers."""
        self._verbs.is_closed = True
        self._client.close()

    def put(
        self,
        value: Any,
        *,
        delay: float | None = None,
        priority: int = 0,
        expires: float | None = None,
        dedup_id: str | None = None,
        group: str | None = None,
        timeout: float | None = None,
        token: int | None = None,
    ) -> Any:
        """Put a value, and return the item's id once the keeper has it safe.

        It is given to a consumer after ``delay`` seconds, and dropped if nobody has got it after ``expires``. Priority
        9 goes first. Of the items of a ``group`` one is out at a time. If an item with this ``dedup_id`` was put
        before, its id is returned and nothing is put. ``token`` is that of a leader. While the queue is full this waits
        up to ``timeout`` seconds, None for ever, and then raises `QueueFull`. Raises TypeError for a value that is no
        MessagePack value, ValueError for one that is too large or nested too deep, and sends nothing then;
        `StaleToken`.
        """
        if delay is expires is dedup_id is group is token is None and priority == 0:
            options = PLAIN
        else:
            options = PutOptions(delay, priority, expires, dedup_id, group, token)
        if timeout is not None or not is_small(value):
            return self._perform(self._verbs.put(value, options, timeout))
        verbs = self._own_verbs if MARK[0] else self._verbs
        lane = verbs.begin_put()
        numbered = lane.numbered if options is PLAIN else options.numbered(lane)
        began_at = monotonic()
        try:  # without the steps of further tries as long as there is none
            answer = self._client.call("queue.put", self.name, value, numbered, timeout=None, idempotent=True)
        except FAILURES as error:
            return self._perform(verbs.put_by(lane, options, "queue.put", value, None, Failed(error, began_at)))
        verbs.end_put(lane)
        return answer

    def put_many(
        self,
        values: Iterable[Any],
        *,
        delay: float | None = None,
        priority: int = 0,
        expires: float | None = None,
        dedup_id: str | None = None,
        group: str | None = None,
        timeout: float | None = None,
        token: int | None = None,
    ) -> list[Any]:
        """Put values in one call, all or none, in their order. Returns their ids.

        The ``dedup_id`` is that of all together. Otherwise as `put`.
        """
        options = PutOptions.of(delay, priority, expires, dedup_id, group, token)
        return self._perform(self._verbs.put_many(values, options, timeout))

    def get(self, timeout: float | None = None, *, ack: Sequence[Item] = ()) -> Item | None:
        """Take the next item; None if there is none within ``timeout`` seconds. None waits for ever.

        ``ack`` are items that are done: their ack travels with this call. If one of them is not held any more, this
        raises `LeaseLost`, and takes no item.
        """
        found = self._get(1, timeout, ack)
        return found[0] if found else None

    def get_many(self, count: int, timeout: float | None = None, *, ack: Sequence[Item] = ()) -> list[Item]:
        """Take up to ``count`` items. It waits for the first one only. Otherwise as `get`."""
        if count < 1:
            raise ValueError(f"found count={count}, expected at least 1")
        return self._get(count, timeout, ack)

    def _get(self, count: int, timeout: float | None, ack: Sequence[Item]) -> list[Item]:
        done = [item._taken for item in ack]
        verbs, holder = self._own_verbs if MARK[0] else self._verbs, threading.get_ident()
        try:
            if verbs.has_brought:
                found = self._perform(verbs.get(count, timeout, done, holder))
            else:
                found = self._get_at_once(verbs, count, timeout, done, holder)
        finally:
            if verbs.holding or verbs.needs_a_look:
                self._watches.see_to_it()
        return [Item(self, taken) for taken in found]

    def _get_at_once(
        self, verbs: Verbs, count: int, timeout: float | None, ack: list[Taken], holder: int
    ) -> list[Taken]:
        """Get, without the steps of further tries as long as there is none."""
        lane, options = verbs.begin_get(count, ack)
        began_at = monotonic()
        patience = None
        if timeout is not None:
            options["timeout"] = wait = max(0.0, timeout)
            patience = wait + self._patience
        ends_at = math.inf if timeout is None else began_at + wait
        try:
            rows = self._client.call("queue.get", self.name, options, timeout=patience, idempotent=True)
        except FAILURES as error:
            return self._perform(verbs.get_by(lane, ends_at, ack, holder, Failed(error, began_at)))
        except BaseException as error:
            verbs.fail_get(lane, error)
            raise
        found = verbs.end_get(lane, rows, ack, holder)
        if found or monotonic() >= ends_at:
            return found
        return self._perform(verbs.get_until(ends_at, count, holder))

    def ack(self, items: Sequence[Item], token: int | None = None) -> None:
        """Say in one call that items are done.

        Raises `LeaseLost` if some of them are not held any more; the others are done.
        """
        self._perform(self._verbs.ack([item._taken for item in items], token))

    def task_done(self) -> None:
        """Say that the item is done which this thread has held for longest, as of a `queue.Queue`.

        Raises ValueError if no item is held, `LeaseLost`.
        """
        self._perform(self._verbs.task_done(threading.get_ident()))

    def join(self, timeout: float | None = None) -> None:
        """Wait until each item is done or dead. Raises `CallTimeout` after ``timeout`` seconds; None waits for ever."""
        self._perform(self._verbs.join(timeout))

    def peek(self, count: int = 1) -> list[Peeked]:
        """Look at up to ``count`` items that are ready, in the order in which they will be given."""
        return self._perform(self._verbs.peek(count))

    def dead(self, count: int = 100) -> list[Dead]:
        """Look at up to ``count`` items that have used up their attempts."""
        return self._perform(self._verbs.dead(count))

    def retry(self, id: Any = None) -> int:
        """Give the dead item ``id``, or all of them, new attempts. Returns how many there were."""
        return self._perform(self._verbs.retry(id))

    def stats(self) -> dict[str, Any]:
        """Count: ``ready``, ``delayed``, ``leased``, ``dead``, ``waiting`` (consumers), ``bytes``; and ``paused``."""
        found: dict[str, Any] = self._perform(self._verbs.plain("stats"))
        return found

    def pause(self) -> None:
        """Give no item to anybody until `resume`."""
        self._perform(self._verbs.plain("pause"))

    def resume(self) -> None:
        """Give items again."""
        self._perform(self._verbs.plain("resume"))

    def purge(self) -> int:
        """Drop all items that nobody holds. Returns how many there were."""
        found: int = self._perform(self._verbs.plain("purge"))
        return found

    # -- how the steps are performed

    @property
    def _verbs(self) -> Verbs:
        """The verbs of this process, with sessions of its own."""
        if not MARK[0]:
            notice_fork()
        return self._own_verbs

    def _perform(self, steps: Steps[T]) -> T:
        try:
            step = next(steps)
            while True:
                try:
                    answer = self._step(step)
                except BaseException as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration as end:
            found: T = end.value
            return found

    def _step(self, step: Step) -> Any:
        if isinstance(step, Call):
            return self._client.call(step.method, *step.params, timeout=step.timeout, idempotent=True)
        return time.sleep(step.seconds)

    def _look(self) -> bool | None:
        """Do what `Verbs.look` says. Returns whether there is more to look after; None once it is closed."""
        verbs = self._verbs
        if verbs.is_closed:
            return None
        if verbs.needs_a_look:
            self._perform(verbs.look())
        return verbs.needs_a_look

    def _after_fork(self) -> None:
        self._begin()
