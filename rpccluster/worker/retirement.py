"""Retires a worker: decides when its running calls are given up, and when it has finished. Runs in the worker.

A retiring worker accepts nothing new. Its connections move to other workers, as the master asks for them; if the whole
cluster stops, they end here. The worker has finished when it has no connection, no call and no message to the master
left. ``graceful_timeout`` limits running calls, never connections: the worker goes on with connections that nobody can
take yet, and when they have gone, their calls may take as long again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection
from typing import Any, Callable

from rpccluster.ipc.messages import Retire
from rpccluster.worker.connections.handover_channel import HandoverChannel
from rpccluster.worker.hot import Engine

__all__ = ["Retirement"]

LOOK_SECONDS = 0.02  # between two checks whether a retiring worker has finished: an event would cost each call


class Retirement:
    """The retirement of one worker. There may be several orders, since a stop of the cluster overtakes a recycling."""

    def __init__(
        self,
        loop: Any,
        engine: Engine,
        connections: Collection[object],
        channel: HandoverChannel,
        on_finished: Callable[[], None],
    ) -> None:
        """``connections`` are the open ones. ``on_finished`` is called, repeatedly, when nothing is left to do."""
        self._loop = loop
        self._engine = engine
        self._connections = connections
        self._channel = channel
        self._on_finished = on_finished
        self._may_end = True  # once it has finished
        self._served_on: Retire | None = None  # the order beyond whose graceful_timeout connections are served
        self._timers: list[Any] = []
        self.began_at = 0.0  # monotonic seconds
        self.ends_at = math.inf  # monotonic seconds, when graceful_timeout is over

    def begin(self, order: Retire) -> None:
        """Obey ``order``."""
        now = time.monotonic()
        self.began_at = self.began_at or now
        self.ends_at = min(self.ends_at, now + order.graceful_seconds)
        self._may_end = not order.stays
        self._start(LOOK_SECONDS, LOOK_SECONDS, self._look)
        self._set_deadline(order)

    def _look(self) -> None:
        if self._connections or not self._may_end:
            return
        if self._engine.is_quiet and self._channel.is_quiet:
            self._on_finished()
        elif self._served_on is not None:
            self._set_deadline(self._served_on)
            self._served_on = None

    def _set_deadline(self, order: Retire) -> None:
        # if the cluster stops, calls that waited for a greenlet begin after the deadline: give up again and again
        again = LOOK_SECONDS if order.whole_cluster else 0.0
        self._start(order.graceful_seconds, again, self._give_up, order)

    def _give_up(self, order: Retire) -> None:
        """Answer running calls with an error at ``graceful_timeout``, and keep the connections."""
        self._engine.give_up("its graceful_timeout is over")
        self._served_on = order if self._connections and not order.whole_cluster else None

    def _start(self, seconds: float, again: float, do: Callable[..., None], *arguments: Any) -> None:
        timer = self._loop.timer(seconds, again)
        timer.start(do, *arguments)
        self._timers.append(timer)
