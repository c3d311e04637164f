"""The two masters of the broker's tests; no descriptor is left behind."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from .rig import Rig


@pytest.fixture
def rig() -> Iterator[Rig]:
    """With no descriptor left behind."""
    before = len(os.listdir("/proc/self/fd"))
    made = Rig()
    yield made
    made.close()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def new_master() -> Iterator[Rig]:
    """The new master's side."""
    made = Rig(first_serial=1000)
    yield made
    made.close()
