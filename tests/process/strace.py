"""strace(1) beside a process that runs: what it injects into the process's system calls."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

__all__ = ["injected"]


@contextlib.contextmanager
def injected(pid: int, calls: str, what: str, notes: Path) -> Iterator[None]:
    """Let the process have ``what`` instead of its system ``calls``; ``notes`` gets the calls. It is let go then."""
    options = ["-e", f"trace={calls}", "-e", f"inject={calls}:{what}"]
    strace = subprocess.Popen(["strace", "-p", str(pid), "-o", str(notes), *options], stderr=subprocess.PIPE, text=True)
    assert strace.stderr is not None
    try:
        line = strace.stderr.readline()
        if "attached" not in line:
            pytest.skip(f"strace may not look into other processes here: {line}")
        yield
    finally:
        strace.send_signal(signal.SIGINT)
        strace.communicate(timeout=10)
