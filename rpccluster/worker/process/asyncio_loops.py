"""Event loops of asyncio side by side: several calls of one worker may each be in `asyncio.run`.

asyncio keeps the running loop, and what it has hooked into asynchronous generators, with the thread, which greenlets
share. So both are set aside at each switch between greenlets; but only while there is a loop, which is known by its
selector, gevent's. Costs nobody else anything. Runs in the worker.
"""

from __future__ import annotations

import sys
from typing import Any

from gevent.selectors import GeventSelector
from greenlet import gettrace, settrace

__all__ = ["set_aside_at_switches"]

_NO_HOOKS = (None, None)


class _Loops:
    """The loops that run in greenlets of this process, with their hooks."""

    def __init__(self) -> None:
        self._of: dict[Any, tuple[Any, Any]] = {}
        self._previous: Any = None
        self._tracer = self._on_switch  # one object: a bound method is another each time

    def begin(self) -> None:
        """A loop runs: watch switches from now on."""
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
    """From now on a loop is the running one while its own greenlet runs, and no longer."""
    original = GeventSelector.select
    loops = _Loops()

    def select(self: GeventSelector, timeout: float | None = None) -> Any:
        events: Any = sys.modules.get("asyncio.events")
        if events is not None and events._get_running_loop() is not None:
            loops.begin()
        return original(self, timeout)

    GeventSelector.select = select
