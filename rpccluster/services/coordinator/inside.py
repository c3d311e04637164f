"""The coordinator's half that speaks with the master: it is told to resign and to end, and tells who leads.

A `rpccluster.worker.parts.Inside`. Runs in the coordinator, on gevent's loop.
"""

from __future__ import annotations

import time

from rpccluster.child.assignment import Assignment, RPCPart
from rpccluster.ipc.messages import LeadOrder, LeadTold, Message, Present
from rpccluster.ipc.packets import close_all
from rpccluster.ipc.scoreboard import CoordinatorCell
from rpccluster.leading.page import lead_page
from rpccluster.leading.store import Standing
from rpccluster.services.coordinator.attending import Attending
from rpccluster.services.coordinator.members import Members
from rpccluster.services.coordinator.memory import Memory
from rpccluster.services.coordinator.service import Coordinator
from rpccluster.services.coordinator.stores import Access

__all__ = ["Inside"]


class Inside:
    """The coordinator as its master hears it. ``service`` is what it serves."""

    def __init__(self, assignment: Assignment[RPCPart]) -> None:
        """Raises OSError if its memory cannot be used."""
        options = assignment.part.own
        self._channel = assignment.channel
        self._row = assignment.row
        advertised = str(options.advertise[0]) if options.advertise else ""
        memory = Memory(assignment.part.memory)
        access = Access(options)
        self._attending = Attending(access, memory, lead_page(), options.session_timeout, advertised)
        self._attending.on_change = self._tell
        self._attending.show_life = self._show_life
        self._members = Members(access, memory, [str(address) for address in options.advertise])
        self._attending.on_attended = self._members.turn
        self.service = Coordinator(lead_page(), self._attending)

    def start(self) -> None:
        """Begin to stand for the lead."""
        self._show_life()
        self._attending.start()

    def hear(self, message: Message, descriptors: list[int]) -> None:
        """Take a message, and own its descriptors."""
        close_all(descriptors)
        if isinstance(message, LeadOrder):
            self._attending.resign(lambda error, standing: self._answer(message.number, error, standing))
        elif isinstance(message, Present):
            self._members.want(message.state, message.started_at)
            self._attending.come_round()

    def _answer(self, number: int, error: str, standing: Standing) -> None:
        self._channel.send(LeadTold(number, error, standing.leader, standing.token))

    def _tell(self) -> None:
        standing = self._attending.standing
        self._channel.send(LeadTold(0, "", standing.leader, standing.token))

    def _show_life(self) -> None:
        self._row[CoordinatorCell.SIGN_OF_LIFE] = time.monotonic_ns()

    # -- the end

    def retire(self, *, whole_cluster: bool) -> None:
        """Stop to come round; the end of the service does the rest."""
        self._attending.stop()
        self.service.leaves = self.service.leaves or whole_cluster

    @property
    def is_at_rest(self) -> bool:
        """Whether its connections may go: nobody waits for it."""
        return True

    def end(self) -> None:
        """Do nothing more: the lease ends by itself."""
