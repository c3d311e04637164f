"""The service that etc/cluster.ini runs: a few methods for trying a cluster. Runs in the workers."""

from __future__ import annotations

import os
import time
from typing import Any

from rpccluster.service import Service

__all__ = ["Demo"]


class Demo(Service):
    """One method for each thing that a user may want to see a cluster do."""

    def sum(self, *numbers: float) -> float:
        """Add numbers."""
        return sum(numbers)

    def echo(self, value: Any) -> Any:
        """Return the argument."""
        return value

    def sleep(self, seconds: float) -> float:
        """Wait without delaying other calls; return the seconds."""
        time.sleep(seconds)
        return seconds

    def spin(self, seconds: float) -> float:
        """Burn CPU and delay the whole worker; return the seconds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pass
        return seconds

    def pid(self) -> int:
        """Return the worker's process id."""
        return os.getpid()

    def fail(self, message: str = "as you wished") -> None:
        """Raise an exception."""
        raise RuntimeError(message)
