"""A request and an answer, as the rest of the page's process knows them. Pure; runs in the page's process."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

__all__ = ["Answer", "Request", "as_json", "refused"]

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True)
class Request:
    """What a client asks. ``headers`` has all values of each name, which is in lower case; ``peer`` is for the log."""

    method: str
    path: str
    headers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    body: bytes = b""
    peer: str = ""

    def header(self, name: str) -> str:
        """Return the value of a header; several are joined as one list, and empty stands for none."""
        return ", ".join(self.headers.get(name, ()))


@dataclass(frozen=True)
class Answer:
    """What a client is answered. The chunks of a ``stream`` follow as they come, and then the connection ends.

    ``closes`` ends the connection even if the client would keep it.
    """

    status: HTTPStatus
    body: bytes = b""
    content_type: str = TEXT
    headers: Sequence[tuple[str, str]] = ()
    closes: bool = False
    stream: Iterable[bytes] | None = None

    def head(self, *, keeps: bool) -> bytes:
        """Return the status line and the headers; ``keeps`` says that the connection stays open."""
        length = () if self.stream is not None else (("Content-Length", str(len(self.body))),)
        lines = [
            f"HTTP/1.1 {self.status.value} {self.status.phrase}",
            f"Content-Type: {self.content_type}",
            *(f"{name}: {value}" for name, value in (*length, *self.headers)),
            "Cache-Control: no-store",
            "X-Content-Type-Options: nosniff",
            f"Connection: {'keep-alive' if keeps else 'close'}",
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def refused(
    status: HTTPStatus, reason: str, *, headers: Sequence[tuple[str, str]] = (), closes: bool = False
) -> Answer:
    """Make the answer to a request that is not served, with its reason as plain text."""
    return Answer(status, f"{reason}\n".encode("utf-8", "replace"), headers=headers, closes=closes)


def as_json(value: Any, status: HTTPStatus = HTTPStatus.OK) -> Answer:
    """Make an answer of ``value`` as JSON."""
    return Answer(status, json.dumps(value).encode() + b"\n", JSON)
