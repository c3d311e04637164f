"""A memory cgroup of the test's own: whoever is put into it may take so much more, and is killed by the kernel then."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from rpccluster.testing import wait_until

__all__ = ["memory_cgroup"]

_ROOT = Path("/sys/fs/cgroup")


@contextlib.contextmanager
def memory_cgroup(most_bytes: int) -> Iterator[Path]:
    """Yield its folder, whose ``cgroup.procs`` takes pids. Skips where that is not allowed. Source: cgroups(7)."""
    folder, limits = _place(most_bytes)
    try:
        folder.mkdir()
        for name, value in limits.items():
            if (folder / name).exists():
                (folder / name).write_text(str(value))
        assert any((folder / name).exists() for name in limits), "it has no limit"
    except (OSError, AssertionError) as error:
        with contextlib.suppress(OSError):
            folder.rmdir()
        pytest.skip(f"no memory cgroup can be made here: {error}")
    try:
        yield folder
    finally:
        wait_until(lambda: folder.rmdir() is None, what="its processes have ended")


def _place(most_bytes: int) -> tuple[Path, dict[str, int]]:
    """Return the folder to make, and its limits in their order; version 1 where the controller is mounted."""
    name = f"rpccluster-test-{os.getpid()}"
    if (_ROOT / "memory" / "cgroup.procs").exists():
        limits = {"memory.limit_in_bytes": most_bytes, "memory.memsw.limit_in_bytes": most_bytes}
        return _ROOT / "memory" / name, limits
    return _ROOT / name, {"memory.max": most_bytes, "memory.swap.max": 0}
