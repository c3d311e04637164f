"""Lets several calls of one worker be in `asyncio.run` at the same time. Runs in the worker.

asyncio keeps the running loop, and its hooks of asynchronous generators, per thread, and greenlets share a thread. So
both are exchanged at each switch between greenlets, but only while an asyncio loop runs, which shows when gevent's
selector is used. Other calls cost nothing more.
"""

from __future__ import annotations

import sys
from typing import Any

from gevent.selectors import GeventSelector
from greenlet import gettrace, settrace

__all__ = ["set_aside_at_switches"]

_NO_HOOKS = (None, None)


class _Loops:
    """The asyncio loops of this process's greenlets, with their hooks."""

    def __init__(self) -> None:
        self._of: dict[Any, tuple[Any, Any]] = {}
        self._previous: Any = None
        self._tracer = self._on_switch  # kept as one object: each look-up makes another bound method

    def begin(self) -> None:
        """Watch the switches from now on, because a loop runs."""
        if gettrace() is not self._tracer:
            self._previous = settrace(self._tracer)

    def _on_switch(self, event: str, greenlets: tuple[Any, Any]) -> None:
        events: Any = sys.modules["asyncio.events"]
        origin, target = greenlets
        loop = events._get_running_loop()
        if loop is not None:
            self._of[origin] = loop, sys.get_asyncgen_hooks()
        else:
            self._of.pop(origin, None)
        loop, hooks = self._of.get(target, (None, _NO_HOOKS))
        events._set_running_loop(loop)
        sys.set_asyncgen_hooks(*hooks)
        if self._previous is not None:
            self._previous(event, greenlets)
        if not self._of:
            settrace(self._previous)


def set_aside_at_switches() -> None:
    """Make each asyncio loop the running one only while its own greenlet runs."""
    original = GeventSelector.select
    loops = _Loops()

    def select(self: GeventSelector, timeout: float | None = None) -> Any:
        events: Any = sys.modules.get("asyncio.events")
        if events is not None and events._get_running_loop() is not None:
            loops.begin()
        return original(self, timeout)

    GeventSelector.select = select
