"""Performs the policy's actions on children: start, retire, question, kill. Runs in the master.

Decides nothing. The group shows the effect of an action before the policy is asked again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from rpccluster import system
from rpccluster.config.cpus import CPU_NONE, CPUChoice
from rpccluster.ipc.messages import Retire as RetireOrder
from rpccluster.log import escaped, logger
from rpccluster.master.children import policy
from rpccluster.master.children.affinity import cpu_order, cpus_for_slot
from rpccluster.master.children.child import HUNG, Child, ChildState
from rpccluster.master.children.group import Group
from rpccluster.master.children.roster import Roster
from rpccluster.system import Reserve
from rpccluster.system.cpus import read_topology

__all__ = ["Actions", "cpus_of"]

NO_ROOM_SECONDS = 1.0  # until the next try if the system had no room for another process


class Actions:
    """Performs the actions of one master on its children."""

    def __init__(self, operating_system: system.System, roster: Roster, reserve: Reserve) -> None:
        """``reserve`` lends the descriptors of a new child's channels."""
        self._system = operating_system
        self._roster = roster
        self._reserve = reserve

    def perform(self, group: Group, action: policy.Action) -> None:
        """Perform ``action`` on a child of ``group``."""
        self._PERFORM[type(action)](self, group, action)

    def _spawn(self, group: Group, action: policy.Spawn) -> None:
        staged = group.section.staged
        is_staged = staged is not None and action.generation == staged.generation
        edition = staged if staged is not None and is_staged else group.section
        cpus = cpus_of(edition.options.cpu_affinity, action.slot)
        with self._reserve.lent():
            child = self._roster.spawn(group, action.slot, edition, cpus)
        if child is None:
            group.spawn_at = self._system.monotonic() + NO_ROOM_SECONDS
        else:
            group.due.discard(action.slot)

    def _retire(self, group: Group, action: policy.Retire) -> None:
        child, now = action.child, self._system.monotonic()
        graceful = max(0.0, min(group.options.graceful_timeout, group.stop_by - now))
        logger.info("Retiring %s (pid: %d, slot: %d): %s", group.noun, child.pid, child.slot, action.reason)
        is_told = child.retired_at is not None
        child.note_retirement(action.reason, now, now + graceful + child.slack_seconds)
        is_ending = not group.phase.allows.connections_move or bool(group.unled) or group.is_removed
        child.stays = is_ending and group.is_awaited
        self._order(child, RetireOrder(graceful, is_ending, child.stays), is_told=is_told)

    def _dismiss(self, group: Group, action: policy.Dismiss) -> None:
        child, now = action.child, self._system.monotonic()
        child.stays = False
        left = max(0.0, (child.kill_at or now) - child.slack_seconds - now)
        self._order(child, RetireOrder(left, True), is_told=True)

    def _order(self, child: Child, order: RetireOrder, *, is_told: bool) -> None:
        """Send a child the order to end. A signal says nothing new to one that ``is_told`` already."""
        message = child.farewell(order)
        if message is not None:
            self._roster.say(child, message)
        elif not is_told:
            self._roster.stop(child)

    def _question(self, group: Group, action: policy.Question) -> None:
        action.child.questioned_at = self._system.monotonic()
        signum = action.child.question()
        if signum is not None:
            self._roster.signal(action.child, signum)

    def _admit(self, group: Group, action: policy.Admit) -> None:
        action.child.note_ready(self._system.monotonic())
        group.tell_ready(action.child)

    def _kill(self, group: Group, action: policy.Kill) -> None:
        child = action.child
        if action.reason == HUNG:
            noun = group.noun.replace(group.kind.noun, group.kind.noun.upper(), 1)
            logger.critical("%s TIMEOUT (pid: %d) in %s", noun, child.pid, escaped(child.where_it_hangs()))
        elif child.state is ChildState.RETIRING:
            logger.warning("Killing %s (pid: %d, slot: %d): %s", group.noun, child.pid, child.slot, action.reason)
        self._roster.kill(child, action.reason)

    _PERFORM: ClassVar[dict[type, Callable[[Actions, Group, Any], None]]] = {
        policy.Spawn: _spawn,
        policy.Retire: _retire,
        policy.Dismiss: _dismiss,
        policy.Admit: _admit,
        policy.Question: _question,
        policy.Kill: _kill,
    }


def cpus_of(choice: CPUChoice, slot: int) -> list[int] | None:
    """Return the CPUs for ``slot``; the kernel's files are read only if something is pinned."""
    if choice == CPU_NONE:
        return None
    allowed = system.allowed_cpus()
    return cpus_for_slot(cpu_order(choice, allowed, read_topology(allowed)), slot)
