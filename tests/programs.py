"""Programs of the machine that some tests need. Where one is missing the test is skipped, with a reason.

`.ci/run` installs them, and where `CI` is set a missing one is a failure, unless `.ci/run` has said that it cannot
install programs here. Test process only.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

__all__ = ["DEBIANS_CLIENTS", "free_port", "missing", "needed"]

#: The clients among them, in the version that Debian 12 has.
DEBIANS_CLIENTS = {"Neovim": "0.7.2", "lua-mpack": "1.0.7"}


def needed(program: str, *test: str) -> str:
    """The path of a program; skips the test where there is none, or where it fails with the arguments ``test``."""
    path = shutil.which(program)
    if path is None or (test and subprocess.run([path, *test], capture_output=True, check=False).returncode):
        missing(f"found no {' '.join([program, *test])}; .ci/run names the packages")
    return path


def missing(reason: str) -> NoReturn:
    """Skip the test, or fail it where `CI` is set and programs can be installed."""
    must_be_there = os.environ.get("CI") and not os.environ.get("RPCCLUSTER_WITHOUT_PROGRAMS")
    pytest.fail(reason) if must_be_there else pytest.skip(reason)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that was free just now, for programs that cannot leave the choice to the kernel.

    It is none of those that the kernel gives to others, which might have it before the program binds it.
    """
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for port in random.SystemRandom().sample(range(10_000, max(first, 20_000)), 1000):
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")
