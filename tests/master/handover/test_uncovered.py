"""Why connections would end with their worker, as far as the broker knows."""

from __future__ import annotations

from rpccluster.ipc.messages import Closed, Noted

from ..made_up import ready
from .rig import Rig


def test_each_reason_has_its_number_and_what_was_not_told_is_new(rig: Rig) -> None:
    worker = rig.add(ready(), 5)
    worker.why_uncovered = ""
    assert rig.broker.uncovered(worker) == {"new": 5}
    for cid, why in [(1, "ledger_full"), (2, "kind_of_socket"), (3, "ledger_full")]:
        rig.says(worker, Noted(cid, False, why))
    assert rig.broker.uncovered(worker) == {"ledger_full": 2, "kind_of_socket": 1, "new": 2}
    rig.says(worker, Closed(1))
    assert rig.broker.uncovered(worker) == {"ledger_full": 1, "kind_of_socket": 1, "new": 3}


def test_there_are_not_more_than_connections(rig: Rig) -> None:
    """Some may have ended that the worker has not told of."""
    worker = rig.add(ready(), 1)
    worker.why_uncovered = ""
    for cid in (1, 2):
        rig.says(worker, Noted(cid, False, "ledger_full"))
    assert rig.broker.uncovered(worker) == {"ledger_full": 1}


def test_a_worker_without_a_ledger_has_one_reason_for_all(rig: Rig) -> None:
    assert rig.broker.uncovered(rig.add(ready(), 4)) == {"started_without": 4}
    assert rig.broker.uncovered(rig.add(ready())) == {}
