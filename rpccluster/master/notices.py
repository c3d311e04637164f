"""What systemd is told of this master, again until it was heard: its queue may be full. Runs in the master.

How it is told is `rpccluster.system.notify_systemd`'s.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from rpccluster.system import notify_systemd

__all__ = ["Notices"]


class Notices:
    """States in their order; the next is sent when those before it have been."""

    def __init__(self, send: Callable[[str], bool] = notify_systemd) -> None:
        """``send`` says whether it need not be tried again."""
        self._send = send
        self._due: deque[str] = deque()

    def tell(self, state: str) -> None:
        """Tell it now, or as soon as there is room."""
        self._due.append(state)
        self.turn()

    def turn(self) -> None:
        """Called every turn of the master's loop."""
        while self._due and self._send(self._due[0]):
            self._due.popleft()
