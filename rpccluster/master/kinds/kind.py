"""What a kind of child is to the master: the protocol that it fulfils, and the events that it tells. In the master.

Everything that all children share is in `rpccluster.master.children`, which knows no kind. A new kind is one module
here with these methods, and one module of code that its processes run (`rpccluster.assembly.entries`).
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, Union

from rpccluster.child.assignment import KindPart
from rpccluster.ipc.packets import Passing
from rpccluster.master.children.child import Birth, Child
from rpccluster.master.children.group import Group

__all__ = ["Booted", "Gone", "Kind", "KindEvent", "Passed"]


class Booted(NamedTuple):
    """The child has said that it is ready."""

    child: Child


class Passed(NamedTuple):
    """The child has sent what travels between children; the descriptors are the receiver's."""

    child: Any  # of a kind that passes something on
    message: Passing
    descriptors: list[int]


class Gone(NamedTuple):
    """A child that may have passed something on has ended; what it left unread is the receiver's."""

    child: Any


KindEvent = Union[Booted, Passed, Gone]


class Kind(Protocol):
    """What is special about the children of one kind. ``now`` is monotonic seconds."""

    name: str  # as ``status`` shows it
    noun: str  # what log lines call one

    def equip(self, birth: Birth) -> tuple[Child, KindPart]:
        """Make the record of a child that is about to be forked, and its kind's part of the assignment.

        Raises OSError or MemoryError if something for it cannot be had, and leaves nothing open then.
        """
        ...

    def hear(self, child: Child, message: Passing, descriptors: list[int], now: float) -> KindEvent | None:
        """Take what a child has said; what concerns others is returned. The descriptors are the kind's."""
        ...

    def look(self, group: Group, child: Child, now: float) -> None:
        """Look at a child's own cells: note what makes it overdue, or gives it more time."""
        ...

    def note_end(self, child: Child) -> KindEvent | None:
        """A child has ended, and all that it said was heard; its row is about to be cleared."""
        ...

    def status(self, child: Child, now: float) -> dict[str, Any]:
        """What ``status`` shows of a child beyond what it shows of every one."""
        ...
