"""``call_timeout``: a method is interrupted at its next switch once its time is over. Runs in the worker."""

from __future__ import annotations

from typing import Any, Callable

import gevent

__all__ = ["bound"]


def bound(function: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    """``function`` interrupted at its next switch once ``seconds`` have passed, with a TimeoutError; 0 is no limit."""
    if not seconds:
        return function

    def limited(*params: Any) -> Any:
        with gevent.Timeout(seconds, TimeoutError(f"the call took longer than {seconds:g} seconds")):
            return function(*params)

    return limited
