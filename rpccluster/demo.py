"""What the files in etc/ run, for trying a cluster: a service, in the workers, and functions, in other processes."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

from rpccluster.service import Service

__all__ = ["Demo", "count_primes", "remind", "tell_time"]


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


def remind(what: str, plugin: Any) -> None:
    """Print ``what`` each minute, until the plugin is told to end."""
    print(what)
    while not plugin.stopping.wait(60):
        print(what)


def tell_time(plugin: Any) -> None:
    """Tell everybody who connects what time it is, until the plugin is told to end."""
    threading.Thread(target=_tell_time, args=plugin.listeners, daemon=True).start()
    plugin.stopping.wait()


def _tell_time(listener: Any) -> None:
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(f"{time.ctime()}\n".encode())


def count_primes(below: int) -> int:
    """Count the primes below a number, in a pool's process: it takes a while, and all of a CPU."""
    return sum(all(number % factor for factor in range(2, int(number**0.5) + 1)) for number in range(2, below))
