"""The meaning of ``timeout`` in a call. Pure; both faces use it."""

from __future__ import annotations

import math
from typing import Any

__all__ = ["CLIENTS", "seconds_of"]


class _Clients:
    def __repr__(self) -> str:
        return "<the client's>"


#: The default in a call: as long as the client was told when it was made.
CLIENTS: Any = _Clients()


def seconds_of(timeout: float | None, clients: float) -> float:
    """Return the seconds of ``timeout``: None means no limit, and `CLIENTS` means ``clients``."""
    if timeout is CLIENTS:
        return clients
    return math.inf if timeout is None else timeout
