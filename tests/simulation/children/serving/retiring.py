"""The retirement of a made-up worker: it ends what it has, gives up what takes too long, and runs a last hook."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rpccluster.ipc.messages import Retire
from rpccluster.worker.lifecycle import Event, State

from ...world.process import NEVER

if TYPE_CHECKING:
    from .worker import Worker

__all__ = ["Retiring"]

LOOK_SECONDS = 0.02


class Retiring:
    """That of one worker; ``order`` is its master's last one, ``since`` when the first one came."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._world = worker.world
        self.order: Retire | None = None
        self.since = 0.0
        self.ends_at = NEVER  # once it has nothing left to do
        self._gives_up_at = self._looks_at = NEVER

    @property
    def wake_at(self) -> float:
        """When it must be looked at."""
        return min(self._gives_up_at, self._looks_at)

    def obey(self, order: Retire) -> None:
        """Retire, or go on with that by another order."""
        self._worker.step_to(Event.MUST_RETIRE)
        if self._worker.state is State.GONE:
            return
        now = self._world.now
        self.since = self.since or now
        self.order = order
        self._gives_up_at = min(self._gives_up_at, now + order.graceful_seconds)
        self._looks_at = now + LOOK_SECONDS
        if order.whole_cluster:
            self._worker.connections.read_no_more("the cluster stops")

    def look(self) -> None:
        """End, if there is nothing left to do."""
        now = self._world.now
        assert self.order is not None
        if now >= self._gives_up_at:
            self._give_up(self.order)
        if not self._worker.has_work and not self.order.stays:
            self._finish()
        self._looks_at = self._next_look()

    def _finish(self) -> None:
        """Adopt nothing more, and run the service's last hook, which may take a moment."""
        self._worker.step_to(Event.FINISHED)
        random = self._worker.random
        self.ends_at = self._world.now + random.choice((0.0, 0.0, 0.5)) * random.random()
        if self.ends_at == self._world.now:
            raise SystemExit(0)

    def _next_look(self) -> float:
        """It looks at itself all the time; here only when there may be something to see."""
        worker = self._worker
        return NEVER if worker.connections or worker.calls.forwards else self._world.now + 0.2

    def _give_up(self, order: Retire) -> None:
        """Answer what still runs with an error; connections are served on, with as much time again."""
        self._worker.calls.give_up()
        self._gives_up_at = self._world.now + (order.graceful_seconds or LOOK_SECONDS)
