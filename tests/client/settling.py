"""How the client's tests wait without sleeping: until the kernel has told a client what its server did, and by a
clock that is moved by hand."""

from __future__ import annotations

import select
from typing import Any

__all__ = ["MadeUpClock", "settle"]

_SECONDS = 20


class MadeUpClock:
    """Stands still unless it jumps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def jump(self, seconds: float) -> None:
        """Let so many seconds pass."""
        self.now += seconds


def settle(client: Any, address: str | None = None) -> None:
    """Wait until something has come over each connection of ``client``, a client or a pool of either face.

    With an ``address`` only over those to it.

    The next call finds it there, as a call does that is made some milliseconds after the one before it.
    """
    for each in getattr(client, "_members", [client]):
        connection = each._connection
        if connection is not None and address in (None, str(each.address)):
            poll = select.poll()
            poll.register(_socket_of(connection), select.POLLIN)
            assert poll.poll(_SECONDS * 1000), f"nothing came over {connection} in {_SECONDS} seconds"
            connection._look_at = 0.0


def _socket_of(connection: Any) -> Any:
    if hasattr(connection, "_wire"):
        return connection._wire._socket
    return connection._transport.get_extra_info("socket")
