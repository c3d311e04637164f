"""Runs one task after another: from what it is called with to the bytes of its outcome. Runs in the task process.

Whatever a task does, there is exactly one outcome, or the process has ended. The cells say which task runs, and until
when; they are written before it begins, and cleared after its outcome was sent (`rpccluster.ipc.scoreboard.TaskCell`).
"""

from __future__ import annotations

import pickle
import time
import traceback
from types import TracebackType
from typing import Any, Callable, Protocol

import msgpack

from rpccluster.errors import SoftTimeLimit
from rpccluster.failure import message_of, name_of
from rpccluster.ipc.scoreboard import CommonCell, Row, TaskCell
from rpccluster.protocol.codec import unpack
from rpccluster.tasks import current
from rpccluster.tasks.limits import LOOK_NS, Bell, MemoryStop, SoftLimit
from rpccluster.tasks.link import Link
from rpccluster.tasks.targets import Refused
from rpccluster.tasks.wire import (
    FORMS,
    OK,
    OUT_OF_MEMORY,
    PICKLE,
    RAISED,
    REJECTED,
    RPC,
    Done,
    Failure,
    Run,
    pack_failure,
)

__all__ = ["Code", "Runner"]

_PICKLE_PROTOCOL = 5
_LONGEST_TRACEBACK = 100_000

_RUNNING = int(CommonCell.RUNNING)
_DEADLINE, _STARTED_AT, _TASKS = int(TaskCell.DEADLINE), int(TaskCell.STARTED_AT), int(TaskCell.TASKS)
_BEGUN = int(TaskCell.BEGUN)

_OWN_LIMITS = (SoftTimeLimit, MemoryError)

Outcome = tuple  # of its name and its payload


class Code(Protocol):
    """What the tasks of this process may run."""

    def find(self, target: str) -> Callable[..., Any]: ...
    def method(self, name: str) -> Callable[..., Any]: ...


class Runner:
    """Runs the tasks of one process, one at a time."""

    def __init__(self, code: Code, link: Link, row: Row, bell: Bell, memory: MemoryStop) -> None:
        self._code = code
        self._link = link
        self._cells = row.cells
        self._bell = bell
        self._memory = memory
        self._soft = SoftLimit()
        self._tasks = 0

    def run(self, run: Run) -> None:
        """Run one task, tell its outcome, and clear its cells. Raises OSError if nobody can be told."""
        started_at = self._begin(run)
        outcome, payload = self._outcome(run)
        current.end()
        self._cells[_DEADLINE] = 0
        done = Done(run.number, run.task_id, run.attempt, outcome, payload, started_at, time.time())
        self._tasks += 1
        self._cells[_TASKS] = self._tasks
        self._link.tell_done(done)
        self._cells[_RUNNING] = 0

    def _begin(self, run: Run) -> float:
        """Write the cells, and have the master look in time. Returns the time of the day."""
        cells, now, started_at = self._cells, time.monotonic_ns(), time.time()
        look_at = 0
        if run.timeout:
            cells[_DEADLINE] = look_at = now + int(run.timeout * 1e9)
        cells[_STARTED_AT] = int(started_at * 1e9)
        cells[_BEGUN] = run.number
        cells[_RUNNING] = run.number
        if self._memory.is_set:
            look_at = min(look_at or now + LOOK_NS, now + LOOK_NS)
        if look_at:
            self._bell.ring_by(look_at)
        self._link.begin(run)
        current.begin(current.Task(run.task_id, run.attempt, self._link.tell_progress))
        return started_at

    def _outcome(self, run: Run) -> Outcome:
        """Run the task itself. Never raises, except in a process that it has forked."""
        try:
            try:
                self._soft.begin(run.soft_timeout)
                return self._call(run)
            finally:
                self._soft.end()
        except BaseException as error:
            self._link.end_forked(error)
            return self._failed(run, error)

    def _call(self, run: Run) -> Outcome:
        """Call the target, and pack its result: that may run code of the task's, too."""
        try:
            function, args, kwargs = self._unpacked(run)
        except Refused as error:
            return REJECTED, pack_failure(Failure("Refused", str(error)))
        result = function(*args, **kwargs)
        self._link.end_forked()
        return OK, _packed(run.form, result)

    def _unpacked(self, run: Run) -> tuple[Callable[..., Any], Any, Any]:
        """Return what to call with which arguments; these are not touched before the target was allowed."""
        if run.form not in FORMS:
            raise Refused(f"found the form {run.form!r}, expected one of: {', '.join(FORMS)}")
        function = self._code.method(run.target) if run.form == RPC else self._code.find(run.target)
        try:
            if run.form == PICKLE:
                args, kwargs = pickle.loads(run.payload)
                return function, args, kwargs
            value = unpack(run.payload)
        except _OWN_LIMITS:
            raise
        except Exception as error:
            raise Refused(f"cannot unpack the arguments: {name_of(error)}: {message_of(error)}") from error
        return function, value if run.form == RPC else (value,), {}

    def _failed(self, run: Run, error: BaseException) -> Outcome:
        self._memory.lift()
        try:
            outcome = OUT_OF_MEMORY if isinstance(error, MemoryError) and self._memory.is_set else RAISED
            return outcome, pack_failure(_failure(error))
        finally:
            self._memory.set()


class ResultNotPacked(Exception):
    """The result of a task cannot be packed. Submitters see its name."""


def _packed(form: str, result: Any) -> bytes:
    try:
        if form == PICKLE:
            return pickle.dumps(result, _PICKLE_PROTOCOL)
        packed: bytes = msgpack.packb(result, unicode_errors="surrogateescape")
        return packed
    except _OWN_LIMITS:
        raise
    except Exception as error:
        raise ResultNotPacked(f"cannot pack the result: {name_of(error)}: {message_of(error)}") from error


def _failure(error: BaseException) -> Failure:
    """Describe an exception by texts alone."""
    try:
        trace = _of_the_task(error.__traceback__)
        lines = "".join(traceback.format_exception(type(error), error, trace))
    except Exception:  # the task's own exception may do anything
        lines = ""
    return Failure(name_of(error), message_of(error), lines[-_LONGEST_TRACEBACK:])


def _of_the_task(trace: TracebackType | None) -> TracebackType | None:
    """Return the part of a traceback behind our own frames; all of it if there is none."""
    own = trace
    while own is not None and own.tb_frame.f_code.co_filename == __file__:
        own = own.tb_next
    return own or trace
