"""USR1: whose logs are opened anew, and who gets which."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

import pytest

from rpccluster.master.changes.logs import LogReopening

from ..made_up import booting, cluster, group, ready


@pytest.mark.parametrize("has_own_logs", [True, False])
def test_each_worker_gets_the_logs_of_its_configuration(has_own_logs: bool) -> None:
    """The first one of a reload that may still be given up, too."""
    made: Any = cluster()
    workers = group(section=made)
    made.logs = SimpleNamespace(reopen=lambda: [5])
    made.staged = SimpleNamespace(logs=SimpleNamespace(reopen=lambda: [6]) if has_own_logs else made.logs, generation=2)
    old, new = ready(0), booting(0, edition=made.staged)
    workers.children[:] = [old, new]
    reopened: list[tuple[Any, list[int]]] = []
    roster: Any = SimpleNamespace(say=lambda worker, _, descriptors: reopened.append((worker, descriptors)))
    reserve: Any = SimpleNamespace(lent=contextlib.nullcontext)
    groups: Any = SimpleNamespace(all=[workers])
    LogReopening(made, workers, groups, roster, reserve).reopen()
    assert sorted(descriptors for _, descriptors in reopened) == [[5], [6] if has_own_logs else [5]]
    assert (old, [5]) in reopened
