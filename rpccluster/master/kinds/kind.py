"""The protocol that a kind of child fulfils, and the events that it returns. Runs in the master.

`rpccluster.master.children` has everything that all children share, and knows no kind. A new kind is one module here
with these methods, and one module that its processes run (`rpccluster.assembly.entries`).
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, Union

from rpccluster.child.assignment import KindPart
from rpccluster.ipc.messages import Message, Switched, Vote
from rpccluster.ipc.packets import Passing
from rpccluster.master.children.child import Birth, Child
from rpccluster.master.children.group import Group

__all__ = ["Booted", "Gone", "Kind", "KindEvent", "Passed", "Told", "Voted"]


class Booted(NamedTuple):
    """The child is ready."""

    child: Child


class Passed(NamedTuple):
    """The child has sent a message about connections that move; the receiver owns the descriptors."""

    child: Any  # of a kind that gives connections
    message: Passing
    descriptors: list[int]


class Gone(NamedTuple):
    """A child that may have given connections has ended; the receiver handles what it has not read."""

    child: Any


class Voted(NamedTuple):
    """The child has voted on new settings, or has switched to them."""

    child: Child
    message: Vote | Switched


class Told(NamedTuple):
    """The child has told the master something that others wait for, or that concerns them."""

    child: Child
    message: Message


KindEvent = Union[Booted, Passed, Gone, Voted, Told]


class Kind(Protocol):
    """A kind of children, as the master needs it. ``now`` is monotonic seconds."""

    name: str  # as ``status`` shows it
    noun: str  # the word for a child in log lines

    def equip(self, birth: Birth) -> tuple[Child, KindPart]:
        """Make the record of a child before its fork, and the kind's part of its assignment.

        Raises OSError or MemoryError if it lacks a resource, and leaves nothing open then.
        """
        ...

    def hear(self, child: Child, message: Passing, descriptors: list[int], now: float) -> KindEvent | None:
        """Take a message of a child, and own its descriptors. Returns an event if it concerns others."""
        ...

    def arrange(self, group: Group, now: float) -> None:
        """Bring the kind's own order into the group, before it is decided about."""
        ...

    def look(self, group: Group, child: Child, now: float) -> float | None:
        """Look at the child's own cells; note if it is overdue, past a limit, or needs more time.

        Returns when to look again at the latest; None if no time needs it.
        """
        ...

    def note_end(self, child: Child) -> KindEvent | None:
        """Note that a child has ended and all its messages have come, before its row is cleared."""
        ...

    def forget(self, group: Group) -> None:
        """Let go of what a group holds that has left the configuration, when its last child has ended."""
        ...

    def status(self, child: Child, now: float) -> dict[str, Any]:
        """Return the fields of ``status`` that only this kind has."""
        ...
