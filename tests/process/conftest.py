"""Clusters for the process tests: made by `cluster(...)`, ended whatever happens."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Callable

import pytest
from answering import ANSWERS
from holding import HELD

from rpccluster.testing import RunningCluster, running_cluster

MakeCluster = Callable[..., RunningCluster]

HERE = Path(__file__).resolve().parent
#: What is run on PyPy: that the cluster starts, serves, scales, recycles and stops. The times that the other
#: modules hold it to are CPython's.
ON_PYPY = {
    "test_command_line",
    "test_daemon",
    "test_recycling",
    "test_scaling",
    "test_serving",
    "test_stopping",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """On PyPy, skip what was not chosen for it."""
    if sys.implementation.name == "pypy":
        mark = pytest.mark.skip(reason="on PyPy a chosen part of the process tests is run: tests/process/conftest.py")
        for item in items:
            if item.path.parent == HERE and item.path.stem not in ON_PYPY:
                item.add_marker(mark)


@pytest.fixture
def make_cluster(tmp_path: Path) -> Iterator[MakeCluster]:
    """Makes clusters, not started yet, each in a folder of its own."""
    made: list[RunningCluster] = []

    def make(
        environment: Mapping[str, str] | None = None,
        sections: Mapping[str, Mapping[str, object]] | None = None,
        **options: object,
    ) -> RunningCluster:
        folder = tmp_path / f"c{len(made)}"
        folder.mkdir()
        made.append(RunningCluster(folder, options, sections=sections, environment=environment))
        return made[-1]

    yield make
    for cluster in made:
        cluster.stop()


@pytest.fixture
def cluster(make_cluster: MakeCluster) -> Callable[..., RunningCluster]:
    """Starts a cluster with the given options and waits until it serves."""
    return lambda **options: make_cluster(**options).start()


@pytest.fixture
def answers(make_cluster: MakeCluster) -> Callable[..., RunningCluster]:
    """Starts a cluster whose service, the module ``answers``, the test writes anew."""

    def start(**options: object) -> RunningCluster:
        running = make_cluster(service="answers:Answers", **options)
        running.write_module("answers", ANSWERS.format(answer="old"))
        return running.start()

    return start


@pytest.fixture
def held(make_cluster: MakeCluster) -> Callable[..., RunningCluster]:
    """Starts a cluster of the demo with calls that run until they are let go."""

    def start(**options: object) -> RunningCluster:
        running = make_cluster(service="held:Held", **options)
        running.write_module("held", HELD)
        return running.start()

    return start


@pytest.fixture(scope="module")
def restless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    """A cluster whose workers are recycled all the time, so that connections move while they are used."""
    folder = tmp_path_factory.mktemp("restless")
    with running_cluster(folder, number_workers=2, max_requests=150, call_timeout=0.2) as running:
        yield running
