"""Memory: what is resident, and giving back what was freed."""

from __future__ import annotations

import contextlib
import gc
import os
import weakref

import pytest

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


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="there are no sealed files in memory")
def test_a_file_is_let_go_of_by_each_descriptor_of_it() -> None:
    """Also by one that a mapping has made for itself."""
    kept, gone = system.sealed_memory_file(4096, "kept"), system.sealed_memory_file(4096, "gone")
    memory = system.map_for_this_process(gone, 4096)
    file = os.fstat(gone)
    assert len(descriptors_of(file)) >= 1
    system.let_go_of_file(file)
    assert descriptors_of(file) == []
    assert descriptors_of(os.fstat(kept)) == [kept]
    assert not os.get_inheritable(gone)
    memory.close()
    os.close(kept)
    os.close(gone)


def descriptors_of(file: os.stat_result) -> list[int]:
    """The descriptors of a file in this process."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(int(name)), file):
                found.append(int(name))
    return found
