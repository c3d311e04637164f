"""A thread that looks once a second after the sessions of a queue while items are held; under gevent a greenlet a hub.

A consumer that works on an item makes no call, and so does not notice that the keeper was started anew, which gives
sessions a few seconds to come back.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from typing import Any

from rpccluster.client.threads.native import start_thread, this_hub
from rpccluster.errors import RPCClusterError

__all__ = ["Watches"]

_LOOK_SECONDS = 1.0
_IDLE_LOOKS = 30  # in a row, after which the thread ends


class Watches:
    """The watches of one queue, by hub.

    ``look`` returns whether there is something to look after; None means that there never will be.
    """

    def __init__(self, look: Callable[[], bool | None]) -> None:
        self._look = weakref.WeakMethod(look)
        self._running: set[Any] = set()

    def see_to_it(self) -> None:
        """Have a thread of this hub look from now on. Without one a keeper's restart may cost the leases."""
        hub = this_hub()
        if hub in self._running:
            return
        self._running.add(hub)
        try:
            start_thread(lambda: self._run(hub), "rpccluster queue")
        except RuntimeError:
            self._running.discard(hub)

    def _run(self, hub: Any) -> None:
        idle = 0
        while idle < _IDLE_LOOKS:
            time.sleep(_LOOK_SECONDS)
            goes_on = self._look_once()
            if goes_on is None:
                break
            idle = 0 if goes_on else idle + 1
        self._running.discard(hub)

    def _look_once(self) -> bool | None:
        look = self._look()
        try:
            return None if look is None else look()
        except RPCClusterError:
            return True  # the consumer's next call tells it
