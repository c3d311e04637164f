"""`rpccluster.TaskPool`: tasks with hard limits, each in a process of its own, for any program.

Runs in the program that makes it: in its threads, and in a program that gevent has patched in its greenlets.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any

from rpccluster.errors import PoolFull
from rpccluster.pools.core import Ended, Task
from rpccluster.pools.future import TaskFuture
from rpccluster.pools.futures import Futures
from rpccluster.pools.mapping import mapped
from rpccluster.pools.program.copies import let_go_after_fork
from rpccluster.pools.program.edge import Edge
from rpccluster.pools.program.options import pool_options
from rpccluster.pools.submission import Callback, whole, work

__all__ = ["TaskPool"]


class TaskPool:
    """A pool of processes that run one task at a time, with hard limits; they end with the program.

    ``targets`` are the modules, or ``module:function``, that may be run; ``["*"]`` allows all. The other options are
    those of ``[pool:NAME]``, with the same defaults. Any thread may use a pool. In a copy that `os.fork` makes of the
    program it raises RuntimeError.
    """

    def __init__(
        self,
        processes: int | None = None,
        targets: Iterable[str] = (),
        *,
        queue_size: int = 1000,
        timeout: float = 0,
        soft_timeout: float = 0,
        max_tasks: int = 0,
        max_tasks_jitter: int = 0,
        max_lifetime: float = 0,
        max_memory: int | str = 0,
        spare: int = 1,
        stop_timeout: float = 10,
        nice: int | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Start the pool. Raises ValueError for an option that cannot be, OSError if no process can be started."""
        given = {name: value for name, value in locals().items() if name != "self"}
        options = pool_options(given)
        self._timeout, self._soft_timeout = float(timeout), float(soft_timeout)
        self._ids = itertools.count(1)
        self._futures = Futures(self._cancel, self._help)
        self._refusal = ""  # why nothing more is taken in
        self._ending = threading.Lock()
        self._pid = os.getpid()
        self._edge = Edge(queue_size, options, self._settle)
        let_go_after_fork(self)

    # -- tasks in

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
        times. As long as a task with the same ``key`` waits or runs, that one's future is returned. One of the two
        callbacks is called once, with the result or with the `rpccluster.TaskFailure`.

        While ``queue_size`` tasks wait this waits, too, or raises `rpccluster.PoolFull` if ``wait`` is false. Raises
        TypeError if the arguments cannot be pickled, TypeError or ValueError if an option cannot be, RuntimeError if
        the pool is closed.
        """
        limit = self._timeout if timeout is None else timeout
        soft_limit = self._soft_timeout if soft_timeout is None else soft_timeout
        todo = work(target, args, kwargs, limit, soft_limit)
        priority, retries = whole("priority", priority), whole("retries", retries)
        edge = self._edge
        with edge.lock:
            task = self._room_or_task(key, wait)
            if task is not None:
                self._futures.add_callbacks(task.owner, target, on_success, on_error)
                return task.owner.future
            id = next(self._ids)
            entry = self._futures.add(id, target, on_success, on_error)
            size = len(todo.payload)
            task = Task(id, todo, owner=entry, priority=priority, retries=retries, key=key, size=size)
            ended = edge.submit(task)
        if ended:
            self._settle(ended)
        return entry.future

    def _room_or_task(self, key: object, wait: bool) -> Task | None:
        """Wait until there is room, with the lock held, or return the task with ``key``."""
        edge = self._edge
        while True:
            if self._refusal:
                raise RuntimeError(self._refusal)
            if key is not None:
                task = edge.core.keyed(key)
                if task is not None:
                    return task
            if not edge.core.is_full or edge.is_here:  # who dispatches cannot wait for itself
                return None
            if not wait:
                raise PoolFull(f"{edge.core.queue_size} tasks wait already (queue_size)")
            edge.room.wait()

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

        At most ``look_ahead`` tasks (``queue_size`` if not given) are submitted whose results have not been taken, so
        ``iterables`` may be endless. ``progress`` draws a bar if stderr is a terminal and rich is installed.
        ``options`` are those of `submit`. The iterator raises a failure when its turn comes, and cancels the rest then.
        """
        at_once = self._edge.core.queue_size if look_ahead is None else look_ahead
        if at_once < 1:
            raise ValueError(f"found look_ahead {at_once}, expected 1 or more")
        return mapped(self.submit, target, iterables, at_once, options, progress)

    # -- ends

    def wait(self, futures: Iterable[TaskFuture] | None = None, timeout: float | None = None) -> bool:
        """Wait until ``futures``, all that were submitted if None, have ended and their callbacks have run.

        Returns False if that takes longer than ``timeout`` seconds. Raises RuntimeError in a callback of the pool.
        """
        return self._futures.wait(futures, timeout)

    def close(self) -> None:
        """Take no more tasks, wait for those that were submitted and for their callbacks, and end the processes."""
        self._refuse("the pool is closed")
        self._futures.wait()
        self._end()

    def terminate(self) -> None:
        """Take no more tasks, and kill the processes: what has not ended is cancelled."""
        self._refuse("the pool is terminated")
        self._end()

    def __enter__(self) -> TaskPool:
        return self

    def __exit__(
        self, type_: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the pool; terminate it if an exception leaves the block."""
        if type_ is None:
            self.close()
        else:
            self.terminate()

    def _refuse(self, why: str) -> None:
        if self._pid != os.getpid():
            raise RuntimeError(self._refusal)
        with self._edge.lock:
            self._refusal = self._refusal or why
            self._edge.room.notify_all()

    def _end(self) -> None:
        with self._ending:
            self._edge.end()
            self._futures.close()

    # -- what is known of it

    @property
    def pids(self) -> list[int]:
        """The pids of the processes that are ready for tasks, or run one."""
        with self._edge.lock:
            return self._edge.processes.pids

    # -- below

    def _settle(self, ended: list[Ended]) -> None:
        for task, kind, detail in ended:
            pid, told = detail or (None, None)
            self._futures.end(task.owner, kind, task.attempt, pid, told)

    def _cancel(self, future: TaskFuture) -> bool:
        if self._pid != os.getpid():
            return False
        return self._edge.cancel(future.id)

    def _help(self, future: TaskFuture, seconds: float | None) -> float | None:
        return seconds if self._refusal and self._pid != os.getpid() else self._edge.help(future, seconds)

    def _after_fork(self) -> None:
        """Let go of the pool, which is the parent's."""
        self._refusal = f"the pool belongs to process {self._pid}, of which this is a copy: it needs a pool of its own"
        self._edge.leave()
        self._futures.leave(RuntimeError(self._refusal))
