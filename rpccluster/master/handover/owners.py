"""Who owns the connections that have moved, and which workers will send no more replies to them. Runs in the master.

A connection's owner has to answer the calls that ran in a worker which has died: it is told so with `DonorGone`,
behind the last reply of that worker.
"""

from __future__ import annotations

from rpccluster.ipc.messages import DonorGone, Give
from rpccluster.master.handover.worker import Worker

__all__ = ["Ended", "Owners", "ended_with"]


class Owners:
    """The owner of each connection that has moved, and the calls that ran elsewhere when it came."""

    def __init__(self) -> None:
        self._owners: dict[int, Worker] = {}
        self._awaited: dict[int, list[list[int]]] = {}

    def note_adopted(self, give: Give, worker: Worker) -> None:
        """The connection is ``worker``'s from now on."""
        self._owners[give.cid] = worker
        if give.awaited:
            self._awaited[give.cid] = give.awaited

    def of(self, cid: int) -> Worker | None:
        """Who has the connection; None if it is in transit, has ended, or never moved."""
        return self._owners.get(cid)

    def forget(self, cid: int) -> None:
        """The connection has ended, or was given on."""
        self._owners.pop(cid, None)
        self._awaited.pop(cid, None)

    def forget_worker(self, worker: Worker) -> None:
        """The worker has ended, and its connections with it."""
        for cid in [cid for cid, owner in self._owners.items() if owner is worker]:
            self.forget(cid)

    def that_await(self, gone: DonorGone) -> list[tuple[int, Worker]]:
        """Each connection that awaits a reply of a worker that has ended, and its owner."""
        cids = [gone.cid] if gone.cid else [*self._awaited]
        return [
            (cid, self._owners[cid])
            for cid in cids
            if any(ended_with(serial, gone) for serial, _ in self._awaited.get(cid, ()))
        ]


class Ended:
    """Which workers have ended whose replies somebody may still await."""

    def __init__(self, first_serial: int) -> None:
        """``first_serial`` is the first worker's of this master; lower ones are those of earlier masters."""
        self.first_serial = first_serial
        self._before: list[DonorGone] = []

    def note(self, gone: DonorGone) -> None:
        """A worker has ended; of its own a master knows who lives, of the earlier masters' what these said."""
        if not gone.is_and_older and gone.serial >= self.first_serial:
            return
        if not gone.cid:
            self._before = [each for each in self._before if not ended_with(each.serial, gone)]
        self._before.append(gone)

    def before(self, give: Give) -> set[int]:
        """Serials of the earlier masters' workers that ``give`` awaits and that have ended."""
        told = [gone for gone in self._before if gone.cid in (0, give.cid)]
        return {serial for serial, _ in give.awaited if any(ended_with(serial, gone) for gone in told)}

    def own(self, give: Give, living: set[int]) -> set[int]:
        """Serials of this master's workers that ``give`` awaits and that are none of ``living``."""
        return {serial for serial, _ in give.awaited if serial >= self.first_serial and serial not in living}


def ended_with(serial: int, gone: DonorGone) -> bool:
    """Whether ``gone`` tells of the worker ``serial``."""
    return serial == gone.serial or (gone.is_and_older and serial < gone.serial)
