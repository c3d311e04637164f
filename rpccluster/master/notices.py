"""Sends this master's states to systemd, and repeats one while systemd's queue is full. Runs in the master.

`rpccluster.system.notify_systemd` does the sending.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from rpccluster.system import notify_systemd

__all__ = ["Notices"]


class Notices:
    """Sends states in their order; each waits until those before it are sent."""

    def __init__(self, send: Callable[[str], bool] = notify_systemd) -> None:
        """``send`` returns whether the state is done with, and False if it must be sent again."""
        self._send = send
        self._due: deque[str] = deque()

    def tell(self, state: str) -> None:
        """Send ``state`` now, or as soon as there is room."""
        self._due.append(state)
        self.turn()

    @property
    def is_waiting(self) -> bool:
        """Whether something is still to be told: call `turn` in a moment."""
        return bool(self._due)

    def turn(self) -> None:
        """Tell what is due."""
        while self._due and self._send(self._due[0]):
            self._due.popleft()
