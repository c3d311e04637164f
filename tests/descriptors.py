"""This test process's own descriptors: counting them, and running out of them."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator

__all__ = ["descriptors_left", "open_descriptors"]


def open_descriptors() -> set[str]:
    """The numbers of those that are open."""
    return set(os.listdir("/proc/self/fd"))


@contextlib.contextmanager
def descriptors_left(number: int) -> Iterator[None]:
    """This process may open so many more, whatever numbers are free."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, open_descriptors()))
    used = [os.dup(0)]
    while used[-1] < highest:
        used.append(os.dup(0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used[-1] + 1 + number, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in used:
            os.close(descriptor)
