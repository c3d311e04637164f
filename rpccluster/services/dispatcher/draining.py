"""Pools that drain queues: each item becomes a task, and what becomes of the task is told to the keeper.

As many items are held as there are processes. Each lease is renewed as long as its task runs or waits, whatever
the task does. A task that ends well is acked; a failure that another attempt may mend gives the item back, after a
pause that grows; any other one makes it dead. Runs in the dispatcher, in greenlets.

A task's id is made of its item's. If the dispatcher is killed, its session ends, and the item comes to the next one
while the task still runs: it is submitted again with the same id, finds the task that runs, and waits for its end.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import gevent
import gevent.event

from rpccluster.client.sync.queue import Item, Queue
from rpccluster.errors import LeaseLost, RPCClusterError
from rpccluster.log import escaped, logger
from rpccluster.pools.cluster.submitter import Detail
from rpccluster.pools.core import kinds
from rpccluster.pools.submission import failure_of
from rpccluster.protocol.codec import make_packer
from rpccluster.rate_limit import LogLimiter, and_more
from rpccluster.services.dispatcher.submitters import Submitter
from rpccluster.tasks.wire import MSGPACK

__all__ = ["Drain", "Drains", "Source"]

_LOOK_SECONDS = 0.2  # between two looks for processes, while all have an item
_REST_SECONDS = 1.0  # after an error of the keeper, which the client has tried to get over for longer
_RENEWALS = 3  # of a lease in its time, at least
_LEAST_SECONDS = 0.05  # between two of them
_MOST_ITEMS = 1000  # in one get
_OF_ITEMS = 1 << 63  # in the id of a task: submitters' own ids are smaller

#: Submits an entry of `rpccluster.services.dispatcher.service.Dispatcher.submit` to a pool.
Submit = Callable[[Submitter, str, "list[Any]"], object]


class Source(NamedTuple):
    """Where the items of a pool come from, and what is called with each."""

    address: str
    queue: str
    target: str
    lease: float


class _Told(Submitter):
    """The drain as a submitter of its tasks; it is told at once how they end."""

    def __init__(self, on_end: Callable[[int, str, list[Any]], object]) -> None:
        super().__init__(f"{os.getpid()}-queue")
        self._on_end = on_end

    def tell(self, task_id: int, what: str, *fields: Any) -> None:
        """Take the end of a task; its progress interests nobody."""
        if what in kinds.FAILURES or what == kinds.OK:
            self._on_end(task_id, what, list(fields))


class Drain:
    """The drain of one pool."""

    def __init__(
        self, pool: str, source: Source, submit: Submit, size: Callable[[str], int], forget: Callable[[int], object]
    ) -> None:
        """``size`` counts the processes of a pool; ``forget`` is told of a task whose end the keeper knows."""
        self.source = source
        self._pool = pool
        self._submit = submit
        self._size = size
        self._forget = forget
        self._queue = Queue(source.address, source.queue)
        self._submitter = _Told(self._note_end)
        self._held: dict[int, Item] = {}  # by the task
        self._ending = 0  # tasks whose ends the keeper is being told
        self._limiter = LogLimiter()
        self._is_retired = False
        self._wake = gevent.event.Event()
        self._jobs = [gevent.spawn(self._take_on), gevent.spawn(self._renew)]

    @property
    def is_at_rest(self) -> bool:
        """Whether the keeper has been told of all that has ended."""
        return not self._ending

    def retire(self) -> None:
        """Take no more items; those that are held may end."""
        self._is_retired = True
        self._jobs[0].kill(block=False)
        self._end_if_retired()

    def _end_if_retired(self) -> None:
        if self._is_retired and not self._held and not self._ending:
            self._jobs[1].kill(block=False)
            self._queue.close()

    # -- items in

    def _take_on(self) -> None:
        while True:
            free = min(self._size(self._pool) - len(self._held), _MOST_ITEMS)
            if free <= 0:
                self._wake.clear()
                self._wake.wait(_LOOK_SECONDS)
                continue
            try:
                items = self._queue.get_many(free)
            except RPCClusterError as error:
                self._complain("cannot take items", error)
                gevent.sleep(_REST_SECONDS)
                continue
            for item in items:
                self._begin(item)

    def _begin(self, item: Item) -> None:
        task_id = _OF_ITEMS | (zlib.crc32(self.source.queue.encode()) >> 1) << 32 | item.id & 0xFFFFFFFF
        self._held[task_id] = item
        payload = make_packer().pack(item.value)
        entry = [task_id, self.source.target, MSGPACK, payload, None, None, 0, 0, None]
        self._submit(self._submitter, self._pool, entry)

    def _renew(self) -> None:
        while True:
            gevent.sleep(max(_LEAST_SECONDS, self.source.lease / (_RENEWALS + 1)))
            for item in list(self._held.values()):
                try:
                    item.touch()
                except RPCClusterError as error:
                    self._complain("cannot renew a lease", error)

    # -- ends out

    def _note_end(self, task_id: int, kind: str, fields: list[Any]) -> None:
        item = self._held.pop(task_id, None)
        self._submitter.ended.discard(task_id)
        self._wake.set()
        if item is None:
            self._forget(task_id)
            return
        self._ending += 1
        gevent.spawn(self._end, task_id, item, kind, fields)

    def _end(self, task_id: int, item: Item, kind: str, fields: list[Any]) -> None:
        try:
            if kind == kinds.OK:
                item.ack()
            else:
                self._give_back(item, kind, fields)
        except LeaseLost:
            logger.warning("An item of the queue %s was another's when its task ended", escaped(self.source.queue))
        except RPCClusterError as error:
            self._complain("cannot tell how a task has ended", error)
        finally:
            self._ending -= 1
            self._forget(task_id)
            self._end_if_retired()

    def _give_back(self, item: Item, kind: str, fields: list[Any]) -> None:
        payload, attempt, pid, started_at, ended_at, signal = fields
        detail = payload if isinstance(payload, str) else Detail(payload, started_at, ended_at, signal)
        text = str(failure_of(item.id, attempt, kind, pid, detail))
        if kind in kinds.REPEATED:
            item.nack(kinds.pause_seconds(item.attempt), text)
        else:
            item.nack(error=text, dead=True)

    def _complain(self, what: str, error: Exception) -> None:
        is_due, held_back = self._limiter.should_log(what)
        if is_due:
            queue = escaped(self.source.queue)
            logger.error("The pool %s %s of the queue %s: %s%s", self._pool, what, queue, error, and_more(held_back))


class Drains:
    """The drains of all pools that have a queue."""

    def __init__(self, submit: Submit, size: Callable[[str], int], forget: Callable[[int], object]) -> None:
        self._make = lambda pool, source: Drain(pool, source, submit, size, forget)
        self._drains: dict[str, Drain] = {}

    def set_pools(self, pools: Mapping[str, Mapping[str, Any]]) -> None:
        """Drain what the configuration says, from now on."""
        sources = {name: _source(options) for name, options in pools.items()}
        for name, drain in list(self._drains.items()):
            if sources.get(name) != drain.source:
                self._drains.pop(name).retire()
        for name, source in sources.items():
            if source is not None and name not in self._drains:
                self._drains[name] = self._make(name, source)

    def retire(self) -> None:
        """Take no more items."""
        for drain in self._drains.values():
            drain.retire()

    @property
    def is_at_rest(self) -> bool:
        """Whether the keeper has been told of all that has ended."""
        return all(drain.is_at_rest for drain in self._drains.values())


def _source(options: Mapping[str, Any]) -> Source | None:
    found = options.get("source")
    return Source(*found) if found else None
