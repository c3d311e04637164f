"""`rpccluster.pool`: a pool of the cluster that this process belongs to, with the methods of a `rpccluster.TaskPool`.

Runs in workers, plugins and what these start.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from rpccluster.pools.cluster.submitter import Submitter, here
from rpccluster.pools.future import TaskFuture
from rpccluster.pools.futures import Entry, Futures
from rpccluster.pools.mapping import mapped
from rpccluster.pools.submission import Callback, whole, work

__all__ = ["ClusterPool", "pool"]

_LOOK_AHEAD = 100  # tasks of a `map` whose results have not been taken


class ClusterPool:
    """One pool of the cluster. `pool` makes it."""

    def __init__(self, name: str, submitter: Submitter) -> None:
        self.name = name
        self._submitter = submitter
        self._futures = Futures(self._cancel)
        self._by_key: dict[object, Entry] = {}

    def submit(
        self,
        target: str,
        /,
        *args: Any,
        timeout: float | None = None,
        soft_timeout: float | None = None,
        priority: int = 0,
        retries: int = 0,
        key: object = None,
        wait: bool = True,
        on_success: Callback | None = None,
        on_error: Callback | None = None,
        **kwargs: Any,
    ) -> TaskFuture:
        """Have ``target(*args, **kwargs)`` run in a process of the pool. Returns its future.

        ``timeout`` and ``soft_timeout`` are seconds from its begin, 0 for none; not given, they are the pool's. A
        higher ``priority`` goes first, but the oldest task has its turn, too. The task is repeated up to ``retries``
        times. As long as a task with the same ``key``, a str or a number, waits or runs, no other one is begun: in this
        process its future is returned, and a submission in another process has the same outcome. One of the two
        callbacks is called once, with the result or with the `rpccluster.TaskFailure`.

        While ``queue_size`` tasks wait this waits, too, or raises `rpccluster.PoolFull` if ``wait`` is false. Raises
        TypeError if the arguments cannot be pickled, TypeError or ValueError if an option cannot be, or if there is no
        such pool.
        """
        present = self._by_key.get(key) if key is not None else None
        if present is not None and not present.future.is_unwanted:
            self._futures.add_callbacks(present, target, on_success, on_error)
            return present.future
        todo = work(target, args, kwargs, timeout or 0.0, soft_timeout or 0.0)
        todo = todo._replace(
            timeout=None if timeout is None else todo.timeout,  # type: ignore[arg-type]
            soft_timeout=None if soft_timeout is None else todo.soft_timeout,  # type: ignore[arg-type]
        )
        priority, retries = whole("priority", priority), whole("retries", retries)
        if key is not None and not isinstance(key, (str, int, float)):
            raise TypeError(f"found the key {key!r}, expected a str or a number")
        entry = self._futures.add(self._submitter.new_id(), target, on_success, on_error)
        if key is not None:
            self._by_key[key] = entry
        on_end = partial(self._end, entry, key)
        options: dict[str, Any] = {"priority": priority, "retries": retries, "key": key, "wait": wait}
        try:
            self._submitter.submit(entry.future.id, self.name, todo, on_end, entry.note_progress, **options)
        except BaseException as refusal:
            self._forget(entry, key)
            self._futures.forget(entry, refusal)
            raise
        return entry.future

    def _end(self, entry: Entry, key: object, kind: str, attempt: int, pid: int | None, detail: Any) -> None:
        self._forget(entry, key)
        self._futures.end(entry, kind, attempt, pid, detail)

    def _forget(self, entry: Entry, key: object) -> None:
        if key is not None and self._by_key.get(key) is entry:
            del self._by_key[key]

    def _cancel(self, future: TaskFuture) -> bool:
        return self._submitter.cancel(future.id)

    def map(
        self,
        target: str,
        /,
        *iterables: Iterable[Any],
        look_ahead: int | None = None,
        progress: bool | str = False,
        **options: Any,
    ) -> Iterator[Any]:
        """Run ``target`` for each item, and return an iterator of the results, in order.

        At most ``look_ahead`` tasks are submitted whose results have not been taken, so ``iterables`` may be endless.
        ``progress`` draws a bar if stderr is a terminal and rich is installed. ``options`` are those of `submit`. The
        iterator raises a failure when its turn comes, and cancels the rest then.
        """
        return mapped(self.submit, target, iterables, look_ahead or _LOOK_AHEAD, options, progress)

    def wait(self, futures: Iterable[TaskFuture] | None = None, timeout: float | None = None) -> bool:
        """Wait until ``futures``, all of this object if None, have ended and their callbacks have run.

        Returns False if that takes longer than ``timeout`` seconds.
        """
        return self._futures.wait(futures, timeout)


_pools: dict[tuple[int, str], ClusterPool] = {}  # by the submitter and the name


def pool(name: str) -> ClusterPool:
    """Return the pool ``name`` of the cluster that this process belongs to, the same object each time.

    Raises RuntimeError in a process that belongs to no cluster with pools.
    """
    submitter = here()
    found = _pools.get((id(submitter), name))
    if found is None:
        found = _pools.setdefault((id(submitter), name), ClusterPool(name, submitter))
    return found
