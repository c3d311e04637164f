"""What the engine knows of a connection, and nothing else. Runs in the worker."""

from __future__ import annotations

from typing import Any, Protocol

from rpccluster.errors import ProtocolError

__all__ = ["Call", "Caller"]


class Caller(Protocol):
    """What the engine knows of a connection."""

    out: list[bytes]  # replies that have gathered in this turn of the loop
    is_choked: bool  # its peer does not read its replies: its calls wait

    @property
    def peer(self) -> str: ...

    def defer(self, message: Any) -> None: ...

    def gather(self, size: int) -> None: ...

    def end_notification(self) -> None: ...

    def flush(self) -> None: ...

    def refuse(self, error: ProtocolError) -> None: ...

    def resume_starved(self) -> None: ...

#: A decoded message, not yet looked at, and where it came from.
Call = tuple[Caller, Any]
