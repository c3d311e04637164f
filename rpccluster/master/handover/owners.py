"""The owners of moved connections, and the ended workers whose replies they may await. Runs in the master.

If a worker dies, the owner of a connection answers the calls that the worker still ran for it. The master tells the
owner with `DonorGone`, behind the last reply of that worker.
"""

from __future__ import annotations

from rpccluster.ipc.messages import DonorGone, Give
from rpccluster.master.handover.worker import Worker

__all__ = ["Ended", "Owners", "ended_with"]


class Owners:
    """The owner of each moved connection, and the calls that ran elsewhere when the connection came."""

    def __init__(self) -> None:
        self._owners: dict[int, Worker] = {}
        self._awaited: dict[int, list[list[int]]] = {}

    def note_adopted(self, give: Give, worker: Worker) -> None:
        """Note that ``worker`` owns the connection of ``give`` from now on."""
        self._owners[give.cid] = worker
        if give.awaited:
            self._awaited[give.cid] = give.awaited

    def of(self, cid: int) -> Worker | None:
        """Return the owner of the connection ``cid``; None if it is in transit, has ended, or never moved."""
        return self._owners.get(cid)

    def forget(self, cid: int) -> None:
        """Forget the connection ``cid``, which has ended or moves again."""
        self._owners.pop(cid, None)
        self._awaited.pop(cid, None)

    def forget_worker(self, worker: Worker) -> list[int]:
        """Forget the connections of ``worker``, which have ended with it. Returns their numbers."""
        ended = [cid for cid, owner in self._owners.items() if owner is worker]
        for cid in ended:
            self.forget(cid)
        return ended

    def that_await(self, gone: DonorGone) -> list[tuple[int, Worker]]:
        """Return each connection that awaits a reply of the ended worker, and its owner."""
        cids = [gone.cid] if gone.cid else [*self._awaited]
        return [
            (cid, self._owners[cid])
            for cid in cids
            if any(ended_with(serial, gone) for serial, _ in self._awaited.get(cid, ()))
        ]


class Ended:
    """The ended workers whose replies a connection may still await."""

    def __init__(self, first_serial: int) -> None:
        """``first_serial`` is that of this master's first worker; earlier masters' workers have lower ones."""
        self.first_serial = first_serial
        self._before: list[DonorGone] = []

    def note(self, gone: DonorGone) -> None:
        """Note that a worker of an earlier master has ended; a master knows its own living workers anyway."""
        if not gone.is_and_older and gone.serial >= self.first_serial:
            return
        if not gone.cid:
            self._before = [each for each in self._before if not ended_with(each.serial, gone)]
        self._before.append(gone)

    def before(self, give: Give) -> set[int]:
        """Return the serials of earlier masters' ended workers whose replies ``give`` awaits."""
        told = [gone for gone in self._before if gone.cid in (0, give.cid)]
        return {serial for serial, _ in give.awaited if any(ended_with(serial, gone) for gone in told)}

    def own(self, give: Give, living: set[int]) -> set[int]:
        """Return the serials of this master's workers whose replies ``give`` awaits, and that are not ``living``."""
        return {serial for serial, _ in give.awaited if serial >= self.first_serial and serial not in living}


def ended_with(serial: int, gone: DonorGone) -> bool:
    """Return whether ``gone`` says that the worker ``serial`` has ended."""
    return serial == gone.serial or (gone.is_and_older and serial < gone.serial)
