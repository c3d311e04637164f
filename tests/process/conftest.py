"""Clusters for the process tests: made by `cluster(...)`, ended whatever happens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Callable

import pytest

from rpccluster.testing import RunningCluster

MakeCluster = Callable[..., RunningCluster]


@pytest.fixture
def make_cluster(tmp_path: Path) -> Iterator[MakeCluster]:
    """Makes clusters, not started yet, each in a folder of its own."""
    made: list[RunningCluster] = []

    def make(environment: Mapping[str, str] | None = None, **options: object) -> RunningCluster:
        folder = tmp_path / f"c{len(made)}"
        folder.mkdir()
        made.append(RunningCluster(folder, options, environment=environment))
        return made[-1]

    yield make
    for cluster in made:
        cluster.stop()


@pytest.fixture
def cluster(make_cluster: MakeCluster) -> Callable[..., RunningCluster]:
    """Starts a cluster with the given options and waits until it serves."""
    return lambda **options: make_cluster(**options).start()
