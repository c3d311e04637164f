"""A service with calls that run until the test lets them go, however slow the machine is meanwhile."""

from __future__ import annotations

from rpccluster.testing import RunningCluster

__all__ = ["HELD", "gate", "let_go"]

HELD = """
import os
import time

from rpccluster.demo import Demo


class Held(Demo):
    def hold(self, path):
        while not os.path.exists(path):
            time.sleep(0.01)
        return "let go"
"""


def gate(running: RunningCluster) -> str:
    """The argument of the method ``hold``: its calls run until `let_go`."""
    return str(running.folder / "gate")


def let_go(running: RunningCluster) -> None:
    """Let all calls of ``hold`` end."""
    (running.folder / "gate").touch()
