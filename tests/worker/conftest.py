"""Tests of what both engines have to do alike run on both."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Callable

import pytest

from rpccluster.worker.hot.choice import why_not_compiled

from . import rig

BOTH = ("worker/hot/", "worker/connections/", "worker/native/test_held_back.py", "worker/test_live_options.py")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    path = metafunc.definition.nodeid
    if any(part in path for part in BOTH):
        metafunc.parametrize("engine", ["python", "compiled"], indirect=True)


@pytest.fixture
def make_rig() -> Iterator[Callable[..., rig.Rig]]:
    """Makes rigs, which are closed at the end."""
    made: list[rig.Rig] = []

    def make(service: Any = None, **options: Any) -> rig.Rig:
        made.append(rig.Rig(service, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture(autouse=True)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The engine of new rigs."""
    name = str(getattr(request, "param", rig.ENGINE))
    if name == "compiled" and why_not_compiled():
        pytest.skip(f"there is no compiled engine: {why_not_compiled()}")
    monkeypatch.setattr(rig, "ENGINE", name)
    return name
