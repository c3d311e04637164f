"""What is submitted to a pool: it is checked and packed here, and its end is unpacked. Runs where it is submitted.

Arguments and results are pickled; nobody but the submitter and the task's process reads them.
"""

from __future__ import annotations

import importlib
import operator
import pickle
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from rpccluster.errors import TaskFailure
from rpccluster.failure import error_text
from rpccluster.pools.core import kinds
from rpccluster.tasks.wire import PICKLE, unpack_failure

__all__ = ["Callback", "Work", "class_callbacks", "failure_of", "packed_arguments", "unpacked_result", "whole", "work"]

_PICKLE_PROTOCOL = 5
_MOST = 1 << 63  # of what MessagePack has

Callback = Callable[[Any], object]


class Work(NamedTuple):
    """What is sent to a task's process beside its numbers: the fields of `rpccluster.tasks.wire.Run`."""

    target: str
    form: str
    payload: bytes
    timeout: float
    soft_timeout: float


def work(target: str, args: Any, kwargs: Any, timeout: float, soft_timeout: float) -> Work:
    """Make the work of one task. Raises TypeError or ValueError if it cannot be."""
    if type(target) is not str or ":" not in target or not target.isprintable():  # that can be sent, too
        raise ValueError(f"found the target {target!r}, expected 'module:function'")
    if not timeout >= 0 or not soft_timeout >= 0:  # NaN, too
        raise ValueError(
            f"found timeout {timeout!r} and soft_timeout {soft_timeout!r}, expected seconds, 0 for no limit"
        )
    payload = packed_arguments(target, args, kwargs)
    return Work(target, PICKLE, payload, float(timeout), float(soft_timeout))


def whole(name: str, number: Any) -> int:
    """Return the option ``name`` of a task as an int. Raises TypeError or ValueError if it is none of 64 bits."""
    try:
        found = operator.index(number)
    except TypeError:
        raise TypeError(f"found {name} {number!r}, expected a whole number") from None
    if not -_MOST <= found < _MOST:
        raise ValueError(f"found {name} {number!r}, expected a whole number of 64 bits")
    return found


def packed_arguments(target: str, args: Any, kwargs: Any) -> bytes:
    """Pickle the arguments of a task. Raises TypeError if they cannot be."""
    try:
        return pickle.dumps((args, kwargs), _PICKLE_PROTOCOL)
    except Exception as error:
        raise TypeError(f"cannot pack the arguments of {target}: {error_text(error)}") from error


def unpacked_result(payload: bytes) -> Any:
    """Unpickle the result of a task. Raises all that its classes raise."""
    return pickle.loads(payload)


def failure_of(task_id: int, attempt: int, kind: str, pid: int | None, detail: Any) -> TaskFailure:
    """Return why a task failed.

    ``detail`` is what was told of its last attempt: a `rpccluster.tasks.wire.Done`, the message that its process has
    ended, a text, or None.
    """
    type_, message, traceback = "", _TEXTS.get(kind, ""), ""
    payload = getattr(detail, "payload", None)
    if isinstance(detail, str):
        message = detail
    elif payload is not None and kind != kinds.CANCELLED:
        type_, message, traceback = unpack_failure(payload)
    signal, started_at, ended_at = (
        getattr(detail, name, None) or None for name in ("signal", "started_at", "ended_at")
    )
    return TaskFailure(kind, type_, message, traceback, task_id, attempt, pid, signal, started_at, ended_at)


_TEXTS = {
    kinds.TIMED_OUT: "the task was killed at its timeout",
    kinds.PROCESS_LOST: "its process ended while it ran",
    kinds.OUT_OF_MEMORY: "the task was killed at max_memory",
    kinds.CANCELLED: "the task was cancelled",
}


def class_callbacks(target: str) -> tuple[Callback | None, Callback | None]:
    """Return the ``callback`` and ``error_callback`` of a class target, for a new instance each; None for others.

    A module that this process has not imported is imported only if the name is one of a class, by its first letter.
    """
    module_name, _, path = target.partition(":")
    name = path.rpartition(".")[2]
    if module_name not in sys.modules and not name[:1].isupper():
        return None, None
    try:
        found: Any = importlib.import_module(module_name)
        for step in path.split("."):
            found = getattr(found, step)
    except Exception:
        return None, None  # the task's process tells what is wrong with it
    if not isinstance(found, type) or not callable(getattr(found, "runnable", None)):
        return None, None
    return _of(found, "callback"), _of(found, "error_callback")


def _of(cls: type, name: str) -> Callback | None:
    if not callable(getattr(cls, name, None)):
        return None
    return lambda value: getattr(cls(), name)(value)
