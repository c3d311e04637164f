"""The replies on their way back from workers that have given their connection on. Data alone. Runs in the master.

The master hands a reply to the owner of its connection. If that worker gives the connection on before it has read the
reply, it sends the reply back. Until then, the next owner must not hear that the worker which has answered has ended:
it would tell the caller that the call is lost. By the calls that a connection awaits when it comes to a worker, and
when it goes, the master knows how many replies that worker has not read.
"""

from __future__ import annotations

from collections import Counter

from rpccluster.ipc.messages import DonorGone, Give, Reply
from rpccluster.master.handover.owners import ended_with
from rpccluster.master.handover.worker import Worker

__all__ = ["Returning"]


class Returning:
    """The replies that come back, and the news of ends that wait for them."""

    def __init__(self) -> None:
        self._awaited: dict[int, Counter[int]] = {}  # by cid: what it awaited of each serial, when its owner got it
        self._passed: dict[int, Counter[int]] = {}  # by cid: replies of each serial that its owner was handed
        self._coming: dict[Worker, Counter[tuple[int, int]]] = {}  # by their bearer: replies of a cid and serial
        self._held: dict[DonorGone, None] = {}

    # -- an owner, from `Adopted` to `Give`

    def note_adopted(self, give: Give) -> None:
        """Note what the connection awaits."""
        self.forget(give.cid)
        if give.awaited:
            self._awaited[give.cid] = Counter(serial for serial, _ in give.awaited)

    def note_passed(self, cid: int, serial: int) -> None:
        """Note that the owner of the connection ``cid`` was handed a reply of the worker ``serial``."""
        if cid in self._awaited:
            self._passed.setdefault(cid, Counter())[serial] += 1

    def note_given(self, worker: Worker, give: Give) -> None:
        """Note that ``worker``, the owner, has given the connection on; what it has not read comes back."""
        before, passed = self._awaited.get(give.cid), self._passed.get(give.cid)
        self.forget(give.cid)
        if before is None or passed is None:
            return
        left = Counter(serial for serial, _ in give.awaited)
        for serial, number in passed.items():
            unread = number - (before[serial] - left[serial])
            if unread > 0 and serial != worker.serial:
                self._coming.setdefault(worker, Counter())[give.cid, serial] += unread

    def forget(self, cid: int) -> None:
        """Forget the owner of a connection that has ended, or moves."""
        self._awaited.pop(cid, None)
        self._passed.pop(cid, None)

    # -- what comes back

    def note_returned(self, worker: Worker, reply: Reply) -> None:
        """Note that ``worker`` has sent ``reply``; it may be one that comes back."""
        coming = self._coming.get(worker)
        if coming is not None and coming[reply.cid, reply.serial] > 0:
            coming[reply.cid, reply.serial] -= 1
            if not any(coming.values()):
                del self._coming[worker]

    def forget_worker(self, worker: Worker) -> None:
        """Note that ``worker`` has ended: what it has not sent back never comes."""
        self._coming.pop(worker, None)

    # -- the news of ends

    def hold(self, gone: DonorGone) -> bool:
        """Keep the news of an end, if a reply of that worker still comes back. Returns whether it does."""
        comes = any(
            number > 0 and gone.cid in (0, cid) and ended_with(serial, gone)
            for coming in self._coming.values()
            for (cid, serial), number in coming.items()
        )
        if comes:
            self._held[gone] = None
        return comes

    def take_held(self) -> list[DonorGone]:
        """Return the news that was kept; `hold` keeps again what must still wait."""
        held, self._held = [*self._held], {}
        return held
