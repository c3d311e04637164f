"""The hubs of gevent, each of which runs the greenlets of one native thread.

In a process that gevent has patched sockets and locks are gevent's, and those of one hub are of no use in another.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterable
from typing import Any

__all__ = ["ended_hubs", "this_hub"]


def this_hub() -> Any:
    """The hub of this native thread; None in a process that is not patched, where there is but one place for all."""
    if socket.socket.__module__ == "socket":
        return None
    gevent = sys.modules.get("gevent")  # nobody else imports it here
    return None if gevent is None else gevent.get_hub()


def ended_hubs(hubs: Iterable[Any], here: Any) -> list[Any]:
    """Those whose native thread is gone, so that their greenlets never run again; ``here`` is this thread's."""
    alive = sys._current_frames().keys() - {here.thread_ident}  # an ended thread's id may be this one's by now
    return [hub for hub in hubs if hub is not here and hub.thread_ident not in alive]
