"""What is on its way: connections in transit, and those that a donor was asked for. Runs in the master.

Data alone: what becomes of it is decided in `rpccluster.master.handover.placement`.
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

REST_SECONDS = 0.1  # before a donor that had nothing to give is asked again


@dataclass(eq=False)
class Transit:
    """A connection that is nobody's but the master's, or whose adopter has not spoken yet."""

    message: Passing  # what the donor said, with its memory file unopened
    descriptors: list[int]  # the connection's, and that file's
    began_at: float
    old_master: Channel | None = None  # it came from there, which keeps its copy until told
    adopter: Worker | None = None
    sent_at: float = 0.0
    is_with_new_master: bool = False
    is_read: bool = False  # by the adopter: it cannot be taken back any more
    replies: list[tuple[Passing, list[int]]] = field(default_factory=list)
    lost: set[int] = field(default_factory=set)  # serials of earlier masters' workers that will reply no more
    size: int = field(init=False)  # bytes that travel with it

    def __post_init__(self) -> None:
        if isinstance(self.message, Unopened):
            self.size = os.fstat(self.descriptors[-1]).st_size
        else:
            self.size = len(self.give.input) + len(self.give.output)

    @property
    def give(self) -> Give:
        """The connection; without input and output if these are in a memory file."""
        give = seen(self.message)
        assert isinstance(give, Give)
        return give

    @property
    def is_unplaced(self) -> bool:
        """Whether nobody was sent it."""
        return self.adopter is None and not self.is_with_new_master

    def place(self, adopter: Worker, now: float) -> None:
        """It was sent to ``adopter``."""
        adopter.given += 1
        self.adopter, self.sent_at, self.is_read = adopter, now, False

    def unplace(self) -> None:
        """It will not come to where it was sent: somebody else is to be sent it."""
        if self.adopter is not None:
            self.adopter.given -= 1
            self.adopter = None

    def note_loss(self, gone: DonorGone) -> None:
        """Workers have ended, and sent all replies that they had."""
        self.lost.update(serial for serial, _ in self.give.awaited if ended_with(serial, gone))

    def close(self) -> None:
        """Close this process's copies."""
        close_all(self.descriptors)
        for _, descriptors in self.replies:
            close_all(descriptors)


class Grants:
    """Which donors were asked to release how many, and have not said yet that they have."""

    def __init__(self) -> None:
        self._granted: dict[Worker, Release] = {}
        self._rests_until: dict[Worker, float] = {}

    @property
    def are_open(self) -> bool:
        """Whether a donor has yet to say that it has given what it was asked for."""
        return bool(self._granted)

    def total(self, is_alive: Callable[[Worker], bool]) -> Release:
        """What may be on its way without anyone having seen it; a donor that does not run gives nothing."""
        granted = [release for worker, release in self._granted.items() if is_alive(worker)]
        return Release(sum(each.number for each in granted), sum(each.number_bytes for each in granted))

    def free_at(self, worker: Worker) -> float:
        """When ``worker`` may be asked; `math.inf` if it has to say `Released` before."""
        return math.inf if worker in self._granted else self._rests_until.get(worker, 0.0)

    def grant(self, worker: Worker, release: Release) -> None:
        """``worker`` was asked."""
        self._granted[worker] = release

    def note_released(self, worker: Worker, number: int, now: float) -> None:
        """``worker`` has given ``number``, all that it could."""
        self.forget(worker)
        if not number:
            self._rests_until[worker] = now + REST_SECONDS

    def forget(self, worker: Worker) -> None:
        """``worker`` has ended, or has given what it was asked for."""
        self._granted.pop(worker, None)
        self._rests_until.pop(worker, None)


@dataclass
class Figures:
    """What ``status`` tells of handovers; seconds are from giving to adopting."""

    handed_over: int = 0
    longest_seconds: float = 0.0
    dropped_replies: int = 0
