"""Reads the children's cells: which child has grown too large, and which needs more time. Runs in the master.

Notes that in the children; the policy decides what follows. Silence needs no look: a heartbeat is a time, so the policy
knows when the last one will be too old. Memory needs one: if `max_memory` is set, a few cells are read twice a second.
"""

from __future__ import annotations

from typing import Callable, Union

from rpccluster.ipc.scoreboard import CommonCell
from rpccluster.log import logger
from rpccluster.master.children.child import MEMORY_GRACE_SECONDS, Child
from rpccluster.master.children.group import Group

__all__ = ["Watch"]

MEMORY_SECONDS = 0.5  # between two looks: children write their memory as often
BUSY_SECONDS = 0.5  # between two looks at retiring children

#: Looks at the cells of a child's kind. Returns when to look again; None if that is open.
Look = Callable[[Group, Child, float], Union[float, None]]


class Watch:
    """Watches all groups of one master."""

    def __init__(self) -> None:
        self._limits_told: dict[str, int] = {}  # the max_memory of each group that was logged as too low

    def turn(self, group: Group, look: Look, now: float) -> float:
        """Look at the children. Returns when to look again (monotonic seconds), infinity if no child needs it."""
        limit, again_at, is_busy = group.options.max_memory, float("inf"), False
        for child in group.children:
            asked_at = look(group, child, now)
            if asked_at is not None and asked_at < again_at:
                again_at = asked_at
            is_busy = is_busy or child.retired_at is not None
            if limit:
                child.look_at_memory(now, limit)
                self._look_at_limit(group, child, now)
        if limit and group.children:
            return min(now + MEMORY_SECONDS, again_at)
        return min(now + BUSY_SECONDS, again_at) if is_busy else again_at

    def _look_at_limit(self, group: Group, child: Child, now: float) -> None:
        """Log once that no child can stay below max_memory."""
        limit, needed = group.options.max_memory, child.row[CommonCell.RSS_BYTES]
        if needed > limit != self._limits_told.get(group.name) and child.is_fresh(now):
            self._limits_told[group.name] = limit
            logger.warning(
                "max_memory is below what a fresh %s needs (found %d bytes, a %s that has just booted has %d): "
                "each is replaced %g seconds after it is ready",
                group.noun,
                limit,
                group.noun,
                needed,
                MEMORY_GRACE_SECONDS,
            )
