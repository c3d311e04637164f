"""What the broker keeps: one connection in transit, what donors were granted, who has ended. Runs in the master.

Data alone: who gets which connection, and when it is taken back, is decided in `rpccluster.master.handover.broker`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

from rpccluster.ipc.channel import Channel
from rpccluster.ipc.messages import DonorGone, Give, Release
from rpccluster.ipc.packets import Passing, Unopened, close_all, seen
from rpccluster.master.children.child import WorkerHandle

__all__ = ["Ended", "Figures", "Grants", "Transit", "ended_with"]

REST_SECONDS = 0.1  # before a donor that had nothing to give is asked again


@dataclass(eq=False)
class Transit:
    """A connection that is nobody's but the master's, or whose adopter has not spoken yet."""

    message: Passing  # what the donor said, with its memory file unopened
    descriptors: list[int]  # the connection's, and that file's
    began_at: float
    giver: Channel | None = None  # the old master's, if it came from there: it keeps its copy until told
    adopter: WorkerHandle | None = None
    sent_at: float = 0.0
    is_with_heir: bool = False
    is_read: bool = False  # by the adopter: it cannot be taken back any more
    replies: list[tuple[Passing, list[int]]] = field(default_factory=list)
    lost: set[int] = field(default_factory=set)  # serials of predecessors' workers that will reply no more

    @property
    def give(self) -> Give:
        """The connection; without input and output if these are in a memory file."""
        give = seen(self.message)
        assert isinstance(give, Give)
        return give

    @property
    def size(self) -> int:
        """Bytes that travel with it."""
        if isinstance(self.message, Unopened):
            return os.fstat(self.descriptors[-1]).st_size
        return len(self.give.input) + len(self.give.output)

    def close(self) -> None:
        """Close this process's copies."""
        close_all(self.descriptors)
        for _, descriptors in self.replies:
            close_all(descriptors)

    @property
    def is_unplaced(self) -> bool:
        """Whether nobody was asked to adopt it."""
        return self.adopter is None and not self.is_with_heir

    def note_loss(self, gone: DonorGone) -> None:
        """Workers have ended, and sent all replies that they had."""
        self.lost.update(serial for serial, _ in self.give.awaited if ended_with(serial, gone))

    def unplace(self) -> None:
        """It will not come to where it was sent: somebody else is to be asked."""
        if self.adopter is not None:
            self.adopter.given -= 1
            self.adopter = None


class Grants:
    """Which donors were told to release how many, and have not said yet that they have."""

    def __init__(self) -> None:
        self._granted: dict[WorkerHandle, Release] = {}
        self._resting: dict[WorkerHandle, float] = {}

    def total(self, is_alive: Callable[[WorkerHandle], bool]) -> Release:
        """What may be on its way without anyone having seen it; a stopped donor gives nothing."""
        granted = [release for worker, release in self._granted.items() if is_alive(worker)]
        return Release(sum(each.number for each in granted), sum(each.number_bytes for each in granted))

    @property
    def are_open(self) -> bool:
        """Whether a donor has yet to say that it has given what it was told to."""
        return bool(self._granted)

    def is_free(self, worker: WorkerHandle, now: float) -> bool:
        """Whether ``worker`` may be asked: it is done with the last grant, and had something to give."""
        return worker not in self._granted and now >= self._resting.get(worker, 0.0)

    def grant(self, worker: WorkerHandle, release: Release) -> None:
        """``worker`` was told so."""
        self._granted[worker] = release

    def note_released(self, worker: WorkerHandle, number: int, now: float) -> None:
        """``worker`` has given ``number``, all that it could."""
        self._granted.pop(worker, None)
        self._resting.pop(worker, None)
        if not number:
            self._resting[worker] = now + REST_SECONDS

    def forget(self, worker: WorkerHandle) -> None:
        """``worker`` has ended."""
        self._granted.pop(worker, None)
        self._resting.pop(worker, None)


class Ended:
    """Which workers have ended whose replies somebody may still await."""

    def __init__(self, first_serial: int) -> None:
        """``first_serial`` is the first worker's of this master; lower ones are those of its predecessors."""
        self._first_serial = first_serial
        self._before: list[DonorGone] = []

    def note(self, gone: DonorGone) -> None:
        """A worker has ended; of its own a master knows who lives, of its predecessors' what they said."""
        if not gone.is_and_older and gone.serial >= self._first_serial:
            return
        if not gone.cid:
            self._before = [each for each in self._before if not ended_with(each.serial, gone)]
        self._before.append(gone)

    def before(self, give: Give) -> set[int]:
        """Serials of the predecessors' workers that ``give`` awaits and that have ended."""
        told = [gone for gone in self._before if gone.cid in (0, give.cid)]
        return {serial for serial, _ in give.awaited if any(ended_with(serial, gone) for gone in told)}

    def own(self, give: Give, living: set[int]) -> set[int]:
        """Serials of this master's workers that ``give`` awaits and that are none of ``living``."""
        return {serial for serial, _ in give.awaited if serial >= self._first_serial and serial not in living}


def ended_with(serial: int, gone: DonorGone) -> bool:
    """Whether ``gone`` tells of the worker ``serial``."""
    return serial == gone.serial or (gone.is_and_older and serial < gone.serial)


@dataclass
class Figures:
    """What ``status`` tells of handovers; seconds are from giving to adopting."""

    handed_over: int = 0
    longest_seconds: float = 0.0
    dropped_replies: int = 0
