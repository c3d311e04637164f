"""The made-up keeper: a process on the engine of the workers that owns a file, and is told which queues there are."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from rpccluster.ipc.messages import Findings, Inquire, Message, Queues

from ..world.process import Fault
from ..world.world import World
from .serving.worker import Worker

if TYPE_CHECKING:
    from ..masters.master import Master

__all__ = ["Keeper"]


class Keeper(Worker):
    """The keeper. ``known`` are the queues that it was told of; None before that."""

    noun = "keeper"
    group_name = "queues"

    def __init__(self, world: World, pid: int, master: Master, assignment: Any) -> None:
        super().__init__(world, pid, master, assignment)
        self.is_bad = False  # that is about the service of users
        self.known: set[str] | None = None
        if set(assignment.part.own.queues) != _configured(master):
            raise Fault(f"{self.name} is born with the queues {sorted(assignment.part.own.queues)}")
        if assignment.part.memory < 0 or not (assignment.part.listeners or not master.has_listeners):
            raise Fault(f"{self.name} is born without memory, or without a listener")

    def _accept(self) -> None:
        """Nobody calls it here: a start only looks whether somebody listens."""
        for listener in self.listeners:
            with contextlib.suppress(BlockingIOError):
                listener.accept()[0].close()

    def _act_on(self, message: Message, descriptors: list[int]) -> None:
        super()._act_on(message, descriptors)
        if isinstance(message, Queues):
            self.known = set(message.queues)
        elif isinstance(message, Inquire) and self.random.random() < 0.9:  # else its disk is slow
            self.say(self.channel, Findings(message.number, b"\x90"))  # an empty array


def _configured(master: Master) -> set[str]:
    others = master.parts.cluster.configuration.others
    return {header.partition(":")[2] for header in others if header.startswith("queue:")}
