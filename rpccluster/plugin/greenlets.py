"""What a plugin's process needs to know of gevent, which it never imports itself. Runs in the plugin's process."""

from __future__ import annotations

import importlib
import select
import sys
from typing import Any, Callable

__all__ = ["cooperative_select", "present_greenlet", "present_hub"]


def present_hub() -> Any:
    """Return gevent's hub of this thread; None if the plugin does not use gevent here."""
    module: Any = sys.modules.get("gevent.hub")
    return module._get_hub() if module is not None else None


def present_greenlet() -> Any:
    """Return the greenlet that runs; call it only where there is a hub."""
    return sys.modules["greenlet"].getcurrent()


def cooperative_select() -> Callable[..., Any]:
    """Return the select(2) of this thread, in which greenlets take turns if it has some."""
    found: Callable[..., Any] = select.select
    return found if present_hub() is None else importlib.import_module("gevent.select").select
