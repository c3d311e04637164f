"""What the engine knows of a connection, and nothing else. Runs in the worker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from rpccluster.errors import ProtocolError

__all__ = ["Call", "Caller"]


class Caller(Protocol):
    """What the engine knows of a connection."""

    out: list[bytes]  # replies that have gathered in this turn of the loop

    @property
    def peer(self) -> str: ...

    def gather(self, size: int) -> None: ...

    def end_notification(self) -> None: ...

    def await_closing(self, msgid: int) -> bool: ...

    def flush(self) -> None: ...

    def refuse(self, error: ProtocolError) -> None: ...

    def note_unread(self, error: ProtocolError) -> None: ...

    def resume_starved(self) -> None: ...


#: A message, and where it came from.
Call = tuple[Caller, Any]
#: Messages that came together and were not looked at yet, and where they came from.
Batch = tuple[Caller, Iterator[Any]]
