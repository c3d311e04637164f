"""Memory: what is resident, and giving back what was freed."""

from __future__ import annotations

import gc
import os
import weakref

from rpccluster import system
from rpccluster.system import give_back_freed_memory


def test_resident_memory_is_told_in_bytes() -> None:
    """Of any process; of none it is 0."""
    assert 1 << 20 < system.resident_bytes() < 1 << 34
    assert system.resident_bytes(os.getpid()) > 1 << 20
    assert system.resident_bytes(2**22 + 1) == 0


def test_giving_back_memory_collects_first() -> None:
    """What only a collection frees could not go back otherwise."""

    class Cyclic:
        itself: object = None

    lost = Cyclic()
    lost.itself = lost
    seen = weakref.ref(lost)
    gc.disable()
    try:
        del lost
        give_back_freed_memory()
        assert seen() is None
    finally:
        gc.enable()
