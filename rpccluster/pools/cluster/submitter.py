"""This process as a submitter: which of its tasks have not ended, and how the dispatcher is told and asked.

Each task is sent in a call that says what becomes of it. One thread, a greenlet where gevent has patched, asks for
events again and again, and confirms those that it has heard. If the connection ends, or another dispatcher answers,
everything that has not ended is sent again, with the same ids: the dispatcher knows by them what it has, or what was
begun before it. So a dispatcher may be killed, and no task hangs, none runs twice in an attempt, and none gets another
one's result.

A call that is late must not begin a task again whose end is confirmed, and so forgotten. So each names its *round*: the
dispatcher that it is for, and how often this process has begun to send everything again. A dispatcher takes nothing of
an earlier round, and in one round each task is sent once. Runs in workers, plugins and what these start.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from rpccluster.client import Client
from rpccluster.errors import CallError, ConnectFailed, ConnectionLost, PoolFull, RemoteError
from rpccluster.pools.core import kinds
from rpccluster.pools.future import Progress
from rpccluster.pools.submission import Work
from rpccluster.protocol.codec import make_packer

__all__ = ["Detail", "Open", "Submitter", "here", "present"]

VARIABLE = "RPCCLUSTER_POOLS"  # of the environment: the dispatcher's address

MOVING = 0  # the name of a dispatcher that is about to end
_NOBODY = -1
_MOVE_SECONDS = 0.02
_LOOK_SECONDS = 0.02
_PAUSE_SECONDS = 0.05  # between two tries to reach the dispatcher
_NO_ROUND = (_NOBODY, 0)
_MOST_RESENT = 100  # tasks in one call
_TRIES = (ConnectionLost, ConnectFailed, CallError)
_FAULTS = ("ArgumentError", "TypeError", "ValueError")  # of a submission: it would be refused again

_logger = logging.getLogger("rpccluster.pools")


class Detail(NamedTuple):
    """How the last attempt of a task has ended; ``payload`` is its packed result or `Failure`."""

    payload: bytes | None = None
    started_at: float | None = None
    ended_at: float | None = None
    signal: int | None = None


#: Gets the kind of a task's end, its attempt, the pid of its process, and a `Detail` or a text.
OnEnd = Callable[[str, int, "int | None", Any], object]


class Open:
    """A task that has not ended."""

    __slots__ = ("answered", "entry", "id", "is_waited_for", "note_progress", "on_end", "pool", "refusal", "round")

    def __init__(
        self, id: int, pool: str, entry: list[Any], on_end: OnEnd, note_progress: Callable[[Progress], object]
    ) -> None:
        self.id = id
        self.pool = pool
        self.entry = entry
        self.on_end = on_end
        self.note_progress = note_progress
        self.round = _NO_ROUND  # in which it was sent last
        self.is_waited_for = True  # somebody waits for `answered`
        self.answered = threading.Event()  # it is known whether the pool has taken it
        self.refusal: BaseException | None = None


class Submitter:
    """One process's tasks in the pools of its cluster."""

    def __init__(self, address: str) -> None:
        """``address`` is the dispatcher's."""
        self._client = Client(address, timeout=None, max_message_size=1 << 30)
        self._token = f"{os.getpid()}-{random.getrandbits(64):016x}"
        self._ids = itertools.count(random.getrandbits(31) << 32 | 1)
        self._open: dict[int, Open] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_closed = False
        self._round = _NO_ROUND

    @property
    def unended(self) -> int:
        """The number of tasks that have not ended."""
        return len(self._open)

    # -- tasks out

    def new_id(self) -> int:
        """Return the id of a new task, which no other process uses."""
        return next(self._ids)

    def submit(
        self,
        id: int,
        pool: str,
        work: Work,
        on_end: OnEnd,
        note_progress: Callable[[Progress], object] = bool,
        *,
        priority: int = 0,
        retries: int = 0,
        key: object = None,
        wait: bool = True,
    ) -> None:
        """Submit a task; ``timeout`` and ``soft_timeout`` of ``work`` are those of its pool if they are None.

        Returns when the pool has taken it, or raises `PoolFull`, ValueError for a pool that is not there, RuntimeError
        after `close`, TypeError or ValueError for what MessagePack does not have; then ``on_end`` is not called. Nor is
        it if this is interrupted: then the task is cancelled.
        """
        entry = [id, *work, priority, retries, key, wait]
        make_packer().pack(entry[:3] + entry[4:])  # without the payload, which is bytes
        task = self._add(id, pool, entry, on_end, note_progress)
        try:
            if self._is_mine_to_send(task):
                self._send(task)
            task.answered.wait()
        except BaseException:
            self._withdraw(task)
            raise
        if task.refusal is not None:
            raise task.refusal

    def _send(self, task: Open) -> None:
        try:
            self._note_answers([task], self._client.call(*self._submission(task.pool, [task])))
        except _TRIES as error:  # the thread sends it again
            if isinstance(error, RemoteError) and error.type in _FAULTS:
                self._refuse(task, ValueError(f"cannot submit to the pool {task.pool}: {error}"))

    def _withdraw(self, task: Open) -> None:
        """Have nothing of a task whose submission was interrupted."""
        if self._open.pop(task.id, None) is not None:
            with contextlib.suppress(Exception):  # it has left this process in any case
                self._client.call_async("pool.cancel", self._token, [task.id], timeout=60, idempotent=True)

    def begin(self, id: int, pool: str, work: Work, on_end: OnEnd) -> None:
        """Submit a task, and do not wait for anything: a full pool, or one that is not there, ends it as rejected."""
        task = self._add(id, pool, [id, *work, 0, 0, None, False], on_end, bool)
        task.is_waited_for = False
        if self._is_mine_to_send(task):
            asked = self._client.call_async(*self._submission(pool, [task]), timeout=None)
            asked.add_done_callback(lambda answered: self._note_begun(task, answered))

    def _note_begun(self, task: Open, answered: Any) -> None:
        with contextlib.suppress(*_TRIES):  # the thread sends it again
            self._note_answers([task], answered.result())

    def _is_mine_to_send(self, task: Open) -> bool:
        """Return whether the caller is to send ``task`` in the present round; else the thread sends it in the next."""
        with self._changed:
            before, task.round = task.round, self._round
            return before != task.round

    def _submission(self, pool: str, tasks: list[Open]) -> tuple[Any, ...]:
        return "pool.submit", self._token, tasks[0].round, pool, [task.entry for task in tasks]

    def _add(self, id: int, pool: str, entry: list[Any], on_end: OnEnd, note_progress: Callable[..., object]) -> Open:
        if self._is_closed:
            raise RuntimeError("this process ends, and submits no more")
        task = Open(id, pool, entry, on_end, note_progress)
        with self._changed:
            self._open[id] = task
        self._start()
        return task

    def _note_answers(self, tasks: Iterable[Open], answers: Iterable[str]) -> None:
        for task, answer in zip(tasks, answers):
            if answer == "full":
                self._refuse(task, PoolFull(f"as many tasks wait in the pool {task.pool} as may (queue_size)"))
            elif answer == "no pool":
                self._refuse(task, ValueError(f"found the pool {task.pool!r}, expected one of the configuration"))
            elif answer == "taken":
                self._note_taken(task)

    def _note_taken(self, task: Open) -> None:
        task.entry[-1] = True  # sent again, it is taken in any case
        task.answered.set()

    def _refuse(self, task: Open, refusal: BaseException) -> None:
        if self._open.pop(task.id, None) is None:
            return
        if task.answered.is_set() or not task.is_waited_for:  # it was taken by a dispatcher that knew the pool, perhaps
            task.on_end(kinds.REJECTED, 1, None, str(refusal))
        else:
            task.refusal = refusal
            task.answered.set()

    def cancel(self, id: int) -> bool:
        """Ask for the end of a task. Returns False if it has ended."""
        if id not in self._open:
            return False
        self._client.call_async("pool.cancel", self._token, [id], timeout=60, idempotent=True)
        return True

    # -- events in

    def _start(self) -> None:
        if self._thread is None:
            with self._changed:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="rpccluster pools", daemon=True)
                    self._thread.start()

    def _run(self) -> None:
        name, number, is_reached = _NOBODY, 0, True
        while not self._is_closed:
            try:
                told, events = self._client.call("pool.take", self._token, name, number, idempotent=True)
                if told != name and told != MOVING:
                    number = 0
                    self._send_again(told)
                is_reached = True
            except _TRIES as error:
                if is_reached and not self._is_closed:
                    _logger.info("The dispatcher does not answer (%s): what has not ended is sent again", error)
                is_reached, name = False, _NOBODY
                time.sleep(_PAUSE_SECONDS)
                continue
            for event in events:
                number = event[0]
                self._heed(*event[1:])
            if told == MOVING:
                time.sleep(_MOVE_SECONDS)
            name = told

    def _send_again(self, name: int) -> None:
        """Begin a round with the dispatcher ``name``, and send what has not ended."""
        by_pool: dict[str, list[Open]] = {}
        with self._changed:
            self._round = (name, self._round[1] + 1)
            for task in self._open.values():
                task.round = self._round
                by_pool.setdefault(task.pool, []).append(task)
        for pool, tasks in by_pool.items():
            for first in range(0, len(tasks), _MOST_RESENT):
                some = tasks[first : first + _MOST_RESENT]
                self._note_answers(some, self._client.call(*self._submission(pool, some)))

    def _heed(self, id: int, what: str, *fields: Any) -> None:
        if what == "accepted":
            task = self._open.get(id)
            if task is not None:
                self._note_taken(task)
        elif what == "progress":
            task = self._open.get(id)
            if task is not None:
                task.note_progress(Progress(*fields))
        else:
            task = self._open.pop(id, None)
            if task is not None:
                self._end(task, what, *fields)

    def _end(
        self,
        task: Open,
        kind: str,
        payload: Any,
        attempt: int,
        pid: int | None,
        started_at: float | None,
        ended_at: float | None,
        signal: int | None,
    ) -> None:
        task.answered.set()
        detail = payload if isinstance(payload, str) else Detail(payload, started_at, ended_at, signal)
        try:
            task.on_end(kind, attempt, pid, detail)
        except Exception:
            _logger.exception("The end of a task could not be told")

    # -- the end

    def finish(self) -> None:
        """Wait until all tasks have ended, unless this is a forked copy of their process."""
        while self._open and not self._is_closed and _here.get(os.getpid()) is self:
            time.sleep(_LOOK_SECONDS)

    def close(self) -> None:
        """End all tasks that have not ended; their ends are not told here any more."""
        self._is_closed = True
        left, self._open = list(self._open.values()), {}
        if left:
            _logger.warning("%d tasks of pools are ended with this process, which does not wait for them", len(left))
        if self._thread is not None:
            with contextlib.suppress(*_TRIES):
                self._client.call("pool.leave", self._token, timeout=1.0)
        self._client.close()


_here: dict[int, Submitter] = {}  # by the pid, since a forked copy of the process is another submitter
_making = threading.Lock()


def present() -> Submitter | None:
    """Return the submitter of this process; None if it has submitted nothing."""
    return _here.get(os.getpid())


def here() -> Submitter:
    """Return the submitter of this process. Raises RuntimeError where there is no dispatcher."""
    pid = os.getpid()
    found = _here.get(pid)
    if found is None:
        address = os.environ.get(VARIABLE, "")
        if not address:
            raise RuntimeError("this process belongs to no cluster that has a section [pool:NAME]")
        with _making:
            found = _here.get(pid)
            if found is None:
                found = Submitter(address)
                _here.clear()
                _here[pid] = found
                atexit.register(found.finish)
    return found
