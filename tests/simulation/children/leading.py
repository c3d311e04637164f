"""A made-up coordinator, and the store in which it stands for the lead beside another cluster.

The coordinator comes round to the store, shows the answer on the page of the lead, by the made-up clock, and hears from
its master whether the registry shall list the cluster. It hangs now and then, and is killed for that; the store is away
for a while, or gives the lead to the other cluster when the lease is over.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from rpccluster.ipc.messages import LeadOrder, LeadTold, Message, Present
from rpccluster.ipc.scoreboard import CoordinatorCell
from rpccluster.leading.page import LeadPage
from rpccluster.leading.store import NOBODY, Standing
from rpccluster.worker.lifecycle import State

from ..users.client import Controller
from ..world.process import NEVER
from ..world.world import World
from .rounds import Round

if TYPE_CHECKING:
    from ..afternoon import Afternoon

__all__ = ["HAPPENINGS_OF_LEADERSHIP", "Coordinator", "Store"]

SESSION = 4.0  # seconds
LEASE = 0.75 * SESSION
ROUND = SESSION / 12


class Store:
    """Who leads: this cluster until ``until``, or another one until ``theirs_until``. Its page is what all see."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.page = LeadPage(clock=lambda: round(world.now * 1e9))
        self.token = 0
        self.until = self.theirs_until = self.down_until = 0.0
        self.wants_it_for = 0.0  # the other cluster
        self.listed = ""  # the state in which the registry lists the cluster

    def make_peace(self) -> None:
        """Serve this cluster from now on."""
        self.down_until = self.theirs_until = self.wants_it_for = 0.0

    def attend(self) -> Standing | None:
        """The answer to a coordinator; None while the store is away."""
        now = self._world.now
        if now < self.down_until:
            return None
        if now >= self.until and self.wants_it_for:
            self.token, self.theirs_until, self.wants_it_for = self.token + 1, now + self.wants_it_for, 0.0
        if now < self.theirs_until:
            return Standing(self.token, "tcp://other:1")
        self.token += now >= self.until
        self.until = now + LEASE
        return Standing(self.token, "tcp://here:1", round(self.until * 1e9))


class Coordinator(Round):
    """The coordinator of one master."""

    noun = "coordinator"
    group_name = "leadership"

    @property
    def is_silent(self) -> bool:
        """Whether it has not come round for longer than it may."""
        return bool(self.world.now - self.row[CoordinatorCell.SIGN_OF_LIFE] / 1e9 >= SESSION / 4 - 0.01)

    def hang(self, seconds: float) -> None:
        """Wait for the store, and go on beating."""
        self.comes_round_at = self.world.now + seconds
        self.world.tell(self.name, f"waits for its store for {seconds:.1f} seconds")

    def _boot(self) -> None:
        super()._boot()
        self._show_life()

    def _show_life(self) -> None:
        self.row[CoordinatorCell.SIGN_OF_LIFE] = round(self.world.now * 1e9)

    def come_round(self) -> None:
        self.comes_round_at = self.world.now + ROUND if self.state is not State.RETIRING else NEVER
        self.act()
        self._show_life()
        store, before = self.world.store, self.world.store.page.is_leading
        standing = store.attend()
        if standing is not None:
            store.page.show(standing, SESSION)
            if before != store.page.is_leading:
                self.say(self.channel, LeadTold(0, "", standing.leader, standing.token))

    def _act_on(self, message: Message, descriptors: list[int]) -> None:
        super()._act_on(message, descriptors)
        store = self.world.store
        if isinstance(message, LeadOrder):
            store.until, store.wants_it_for = self.world.now, 1.0
            store.page.show(NOBODY, SESSION)
            self.say(self.channel, LeadTold(message.number, "", "", store.token))
        elif isinstance(message, Present):
            store.listed = message.state


# -- what happens


def _give_away(afternoon: Afternoon, chance: Random) -> None:
    """Another cluster wants the lead, and gets it when the lease is over: the store does not answer until then."""
    store, now = afternoon.world.store, afternoon.world.now
    store.down_until, store.wants_it_for = now + SESSION, 10.0 * chance.random()
    afternoon.world.tell("fate", f"another cluster leads soon, for {store.wants_it_for:.1f} seconds")


def _take_down(afternoon: Afternoon, chance: Random) -> None:
    store = afternoon.world.store
    seconds = 6.0 * chance.random()
    store.down_until = afternoon.world.now + seconds
    afternoon.world.tell("fate", f"the store is away for {seconds:.1f} seconds")


def _hang(afternoon: Afternoon, chance: Random) -> None:
    for coordinator in list(afternoon.world.of_noun[Coordinator.noun].values()):
        if coordinator.state is State.SERVING:
            coordinator.hang(3.0 * chance.random())


def _hand_over(afternoon: Afternoon, chance: Random) -> None:
    """Somebody asks this cluster to give the lead up."""
    afternoon.world.commands += 1
    Controller(afternoon.world, afternoon.paths["control"], "leader.resign", [])


HAPPENINGS_OF_LEADERSHIP: dict[str, Callable[[Afternoon, Random], None]] = {
    "give the lead away": _give_away,
    "take the store down": _take_down,
    "hang the coordinator": _hang,
    "hand the lead over": _hand_over,
}
