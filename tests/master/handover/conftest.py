"""The two masters of the broker's tests; no descriptor is left behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from descriptors import open_descriptors

from .rig import Rig


@pytest.fixture
def rig() -> Iterator[Rig]:
    """With no descriptor left behind."""
    before = open_descriptors()
    made = Rig()
    yield made
    made.close()
    assert open_descriptors() <= before


@pytest.fixture
def new_master() -> Iterator[Rig]:
    """The new master's side."""
    made = Rig(first_serial=1000)
    yield made
    made.close()
