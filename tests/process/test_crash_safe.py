"""A killed worker costs an error, not a connection: what its connections notice of it with ``crash_safe``."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hardy_callers import SERVICE, HardyCallers
from killers import Killer

from rpccluster.testing import RunningCluster, wait_until
from rpccluster.worker.hot.choice import why_not_compiled

pytestmark = pytest.mark.skipif(bool(why_not_compiled()), reason="the compiled engine alone notes what is needed")

FULL_SCALE = bool(os.environ.get("RPCCLUSTER_FULL_SCALE"))
SECONDS = 60.0 if FULL_SCALE else 3.0


@pytest.fixture
def hardy(
    make_cluster: Callable[..., RunningCluster], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., RunningCluster]:
    """Starts a cluster of workers whose connections outlive them, with the service of `hardy_callers`."""
    monkeypatch.setenv("NOTES_FILE", str(tmp_path / "notes"))

    def start(**options: object) -> RunningCluster:
        running = make_cluster(service="hardy:Notes", crash_safe=True, **options)
        running.write_module("hardy", SERVICE)
        return running.start()

    return start


@pytest.mark.timeout(240)
def test_no_connection_is_lost_with_a_killed_worker(hardy: Callable[..., RunningCluster], tmp_path: Path) -> None:
    """Each call is answered once; those that a dead worker had begun are lost, and no others."""
    running = hardy(number_workers=4)
    killer = Killer(running)
    with HardyCallers(running.address, connections=40, large_share=0.02) as callers:
        killer.run(SECONDS)
        wait_until(lambda: callers.oldest_pending_seconds() < 1 or callers.faults, 20, "no call is left to hang")
    print(f"{len(killer.killed)} killed; {callers.answered} calls; {callers.errors}")
    assert len(killer.killed) > SECONDS
    assert callers.faults == []
    assert callers.lost == []
    assert callers.errors.keys() <= {"WorkerLost"}
    callers.assert_each_ran_once(tmp_path / "notes")
