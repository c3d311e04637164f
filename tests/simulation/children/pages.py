"""The made-up process of the page: it asks its master for the status each second, and looks at what it is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rpccluster.ipc.messages import AskMaster, MasterTold, Message
from rpccluster.worker.lifecycle import State

from ..world.process import NEVER, Fault
from ..world.world import World
from .rounds import Round

if TYPE_CHECKING:
    from ..masters.master import Master

__all__ = ["Page"]

ROUND = 1.0


class Page(Round):
    """The process of a page. ``told_at`` is when its master has answered last."""

    noun = "web"
    group_name = "web"

    def __init__(self, world: World, pid: int, master: Master, assignment: Any) -> None:
        super().__init__(world, pid, master, assignment)
        self.told_at = NEVER
        self._number = 0
        part = assignment.part
        if part.memory < 0 or len(part.listeners) != len(part.own.addresses()):
            raise Fault(f"{self.name} is born without memory, or without a listener")

    def _boot(self) -> None:
        super()._boot()
        self.told_at = self.world.now

    def come_round(self) -> None:
        self.comes_round_at = self.world.now + ROUND if self.state is not State.RETIRING else NEVER
        self.act()
        self._number += 1
        self.say(self.channel, AskMaster(self._number, self.serial, "status", []))

    def _act_on(self, message: Message, descriptors: list[int]) -> None:
        super()._act_on(message, descriptors)
        if isinstance(message, MasterTold):
            pids = {each["pid"] for group in message.value["groups"] for each in group["processes"]}
            if message.error or self.pid not in pids:
                raise Fault(f"{self.name} is told {message.error or sorted(map(str, pids))}, and is not in it")
            self.told_at = self.world.now
