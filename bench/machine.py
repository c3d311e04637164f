"""What the figures were measured on: processor, kernel, versions. Reads files only."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import psutil

from bench.build import CHECKOUT
from bench.peers import Peer

__all__ = ["describe"]


def describe(peers: Iterable[Peer]) -> dict[str, str]:
    """Facts by name, in the order of the table's head."""
    packages = sorted({package for peer in peers for package in peer.packages})
    return {
        "processor": f"{_processor()}, {len(psutil.Process().cpu_affinity())} CPUs for this run",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": ", ".join(f"{package} {_version(package)}" for package in packages),
        "commit": _commit(),
        "load average": "{:.2f} {:.2f} {:.2f}".format(*os.getloadavg()),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "(missing)"


def _commit() -> str:
    try:
        command = ["git", "describe", "--always", "--dirty"]
        done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"
