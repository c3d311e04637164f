"""What the broker keeps: one connection in transit, what donors were granted, who has ended. Runs in the master.

Data alone: who gets which connection, and when it is taken back, is decided in `rpccluster.master.broker`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from rpccluster.ipc.channel import Channel
from rpccluster.ipc.messages import DonorGone, Give, Reply
from rpccluster.master.worker_handle import WorkerHandle

__all__ = ["Ended", "Figures", "Grants", "Transit", "ended_with"]

REST_SECONDS = 0.1  # before a donor that had nothing to give is asked again


@dataclass(eq=False)
class Transit:
    """A connection that is nobody's but the master's, or whose adopter has not spoken yet."""

    give: Give
    descriptor: int
    began_at: float
    giver: Channel | None = None  # the old master's, if it came from there: it keeps its copy until told
    adopter: WorkerHandle | None = None
    sent_at: float = 0.0
    is_with_heir: bool = False
    is_read: bool = False  # by the adopter: it cannot be taken back any more
    replies: list[Reply] = field(default_factory=list)
    lost: set[int] = field(default_factory=set)  # serials of predecessors' workers that will reply no more

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
        self._granted: dict[WorkerHandle, int] = {}
        self._resting: dict[WorkerHandle, float] = {}

    def total(self, is_alive: Callable[[WorkerHandle], bool]) -> int:
        """Connections that may be on their way without anyone having seen them; a stopped donor gives none."""
        return sum(number for worker, number in self._granted.items() if is_alive(worker))

    def is_free(self, worker: WorkerHandle, now: float) -> bool:
        """Whether ``worker`` may be asked: it is done with the last grant, and had something to give."""
        return worker not in self._granted and now >= self._resting.get(worker, 0.0)

    def grant(self, worker: WorkerHandle, number: int) -> None:
        """``worker`` was told to release ``number``."""
        self._granted[worker] = number

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
