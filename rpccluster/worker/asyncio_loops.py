"""Event loops of asyncio side by side: several calls of one worker may each be in `asyncio.run`.

asyncio keeps the running loop, and what it has hooked into asynchronous generators, with the thread, which greenlets
share. A loop waits in its selector, gevent's: for that time both are set aside. Costs nobody else anything. Runs in
the worker.
"""

from __future__ import annotations

import sys
from typing import Any

from gevent.selectors import GeventSelector

__all__ = ["set_aside_while_they_wait"]


def set_aside_while_they_wait() -> None:
    """From now on a loop is the running one while its own greenlet runs, and no longer."""
    original = GeventSelector.select

    def select(self: GeventSelector, timeout: float | None = None) -> Any:
        events: Any = sys.modules.get("asyncio.events")
        loop = None if events is None else events._get_running_loop()
        if loop is None:
            return original(self, timeout)
        hooks = sys.get_asyncgen_hooks()
        events._set_running_loop(None)
        sys.set_asyncgen_hooks(None, None)
        try:
            return original(self, timeout)
        finally:
            sys.set_asyncgen_hooks(*hooks)
            events._set_running_loop(loop)

    GeventSelector.select = select
