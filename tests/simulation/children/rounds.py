"""The made-up processes that nobody calls in made-up worlds: they come round by themselves."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Callable

from ..world.process import NEVER
from ..world.world import World
from .serving.worker import Worker

if TYPE_CHECKING:
    from ..masters.master import Master

__all__ = ["Round"]


class Round(Worker):
    """A process of the package itself that has something to do at times: ``come_round``, when ``comes_round_at``."""

    def __init__(self, world: World, pid: int, master: Master, assignment: Any) -> None:
        super().__init__(world, pid, master, assignment)
        self.is_bad = False  # that is about the service of users
        self.comes_round_at = NEVER

    @property
    def wake_at(self) -> float:
        return min(super().wake_at, self.comes_round_at)

    def come_round(self) -> None:
        """Do what is due, and say when the next time is."""
        raise NotImplementedError

    def _boot(self) -> None:
        super()._boot()
        self.comes_round_at = self.world.now

    def _accept(self) -> None:
        """Nobody calls it here: a start only looks whether somebody listens."""
        for listener in self.listeners:
            with contextlib.suppress(BlockingIOError):
                listener.accept()[0].close()

    def _due(self) -> list[Callable[[], None]]:
        acts = super()._due()
        if self.world.now >= self.comes_round_at:
            acts.append(self.come_round)
        return acts
