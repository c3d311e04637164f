"""Tells whether a method's TypeError means that the caller's params do not fit. Runs in the worker, in any thread."""

from __future__ import annotations

import inspect
from typing import Any, Callable

__all__ = ["Misfit", "is_misfit"]


class Misfit(Exception):
    """The params of a call do not fit its method; ``error`` says why. Callers get an ArgumentError."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error


def is_misfit(method: Callable[..., Any], params: list[Any]) -> bool:
    """Return whether ``params`` do not fit the signature of ``method``."""
    try:
        inspect.signature(method).bind(*params)
    except TypeError:
        return True
    except BaseException:  # a builtin that tells no signature, a service's object with one of its own
        return False
    return False
