"""What is raised in place of a call's result, and what its caller is told then. Runs in the worker, in any thread."""

from __future__ import annotations

import inspect
from typing import Any, Callable

__all__ = ["Denied", "Misfit", "Told", "is_misfit"]


class Denied(Exception):
    """The caller may not make this call, and is answered ``text``; it has not begun. Who raises it counts and logs."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class Told(Exception):
    """The error of a call that ran elsewhere: its caller gets ``text`` as it is, the log the ``traceback``, too."""

    def __init__(self, text: str, traceback: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.traceback = traceback


class Misfit(Exception):
    """The params of a call do not fit its method; ``error`` says why. Callers get an ArgumentError."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error


def is_misfit(method: Callable[..., Any], params: list[Any]) -> bool:
    """Return whether ``params`` do not fit the signature of ``method``, so that its TypeError says that."""
    try:
        inspect.signature(method).bind(*params)
    except TypeError:
        return True
    except BaseException:  # a builtin that tells no signature, a service's object with one of its own
        return False
    return False
