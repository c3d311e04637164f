"""``call_timeout``: a method is interrupted at its next switch once its time is over. Runs in the worker."""

from __future__ import annotations

from typing import Any, Callable

import gevent

__all__ = ["bound"]


def bound(function: Callable[..., Any], seconds: float, on_passed: Callable[[], object]) -> Callable[..., Any]:
    """``function`` interrupted at its next switch once ``seconds`` have passed, with a TimeoutError; 0 is no limit.

    ``on_passed`` is called each time.
    """
    if not seconds:
        return function

    def limited(*params: Any) -> Any:
        passed = TimeoutError(f"the call took longer than {seconds:g} seconds")
        try:
            with gevent.Timeout(seconds, passed):
                return function(*params)
        except TimeoutError as error:
            if error is passed:
                on_passed()
            raise

    return limited
