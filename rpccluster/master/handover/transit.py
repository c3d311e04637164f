"""The connections in transit, and those that donors were asked for. Data alone. Runs in the master.

`rpccluster.master.handover.placement` decides about them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field

from rpccluster.ipc.channel import Channel
from rpccluster.ipc.messages import DonorGone, Give, Release
from rpccluster.ipc.packets import Passing, Unopened, close_all, seen
from rpccluster.master.handover.owners import ended_with
from rpccluster.master.handover.worker import Worker

__all__ = ["Figures", "Grants", "Transit"]

REST_SECONDS = 0.1  # before the master asks a donor again that had nothing to give


@dataclass(eq=False)
class Transit:
    """A connection that the master owns, or whose adopter has not sent `Adopted` yet."""

    message: Passing  # the donor's message, with its memory file unopened
    descriptors: list[int]  # of the connection, and of that file
    began_at: float
    old_master: Channel | None = None  # if it came from there: the old master keeps its copy until it gets `Adopted`
    adopter: Worker | None = None
    sent_at: float = 0.0
    is_with_new_master: bool = False
    is_read: bool = False  # the adopter has read it: it cannot be taken back
    replies: list[tuple[Passing, list[int]]] = field(default_factory=list)
    lost: set[int] = field(default_factory=set)  # serials of earlier masters' ended workers
    size: int = field(init=False)  # in bytes

    def __post_init__(self) -> None:
        if isinstance(self.message, Unopened):
            self.size = os.fstat(self.descriptors[-1]).st_size
        else:
            self.size = len(self.give.input) + len(self.give.output)

    @property
    def give(self) -> Give:
        """The donor's message; without input and output if these are in a memory file."""
        give = seen(self.message)
        assert isinstance(give, Give)
        return give

    @property
    def is_unplaced(self) -> bool:
        """Whether it was sent to no adopter."""
        return self.adopter is None and not self.is_with_new_master

    def place(self, adopter: Worker, now: float) -> None:
        """Note that it was sent to ``adopter``."""
        adopter.given += 1
        self.adopter, self.sent_at, self.is_read = adopter, now, False

    def unplace(self) -> None:
        """Note that its adopter will not get it, so that another one may."""
        if self.adopter is not None:
            self.adopter.given -= 1
            self.adopter = None

    def note_loss(self, gone: DonorGone) -> None:
        """Note that workers have ended, and have sent all their replies."""
        self.lost.update(serial for serial, _ in self.give.awaited if ended_with(serial, gone))

    def close(self) -> None:
        """Close this process's copies of all descriptors."""
        close_all(self.descriptors)
        for _, descriptors in self.replies:
            close_all(descriptors)


class Grants:
    """The connections that donors were asked to release and have not yet released."""

    def __init__(self) -> None:
        self._granted: dict[Worker, Release] = {}
        self._rests_until: dict[Worker, float] = {}

    @property
    def are_open(self) -> bool:
        """Whether a donor has not yet sent `Released`."""
        return bool(self._granted)

    def total(self, is_alive: Callable[[Worker], bool]) -> Release:
        """Add up all open grants of donors that show life, since a stopped donor gives nothing."""
        granted = [release for worker, release in self._granted.items() if is_alive(worker)]
        return Release(sum(each.number for each in granted), sum(each.number_bytes for each in granted))

    def free_at(self, worker: Worker) -> float:
        """Return when ``worker`` may be asked; `math.inf` if it must send `Released` before."""
        return math.inf if worker in self._granted else self._rests_until.get(worker, 0.0)

    def grant(self, worker: Worker, release: Release) -> None:
        """Note that ``worker`` was asked."""
        self._granted[worker] = release

    def note_released(self, worker: Worker, number: int, now: float) -> None:
        """Note that ``worker`` has given ``number`` connections, all that it could."""
        self.forget(worker)
        if not number:
            self._rests_until[worker] = now + REST_SECONDS

    def forget(self, worker: Worker) -> None:
        """Forget the grant of ``worker``, which has ended or has given its connections."""
        self._granted.pop(worker, None)
        self._rests_until.pop(worker, None)


@dataclass
class Figures:
    """The figures of handovers in ``status``; seconds are from `Give` to `Adopted`."""

    handed_over: int = 0
    longest_seconds: float = 0.0
    dropped_replies: int = 0
