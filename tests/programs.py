"""Programs of the machine that some tests need. Where one is missing the test is skipped, with a reason.

`.ci/run` installs them, and where `CI` is set a missing one is a failure. Test process only.
"""

from __future__ import annotations

import os
import shutil
import socket

import pytest

__all__ = ["free_port", "needed"]


def needed(program: str) -> str:
    """The path of a program; skips the test where there is none."""
    path = shutil.which(program)
    if path is None:
        told = f"found no {program}; apt-get install {program} brings it"
        pytest.fail(told) if os.environ.get("CI") else pytest.skip(told)
    return path


def free_port() -> int:
    """A TCP port of 127.0.0.1 that was free just now, for programs that cannot leave the choice to the kernel."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
