"""A cluster that is seen, and how tests ask its page: over HTTP, and by bytes that no library would send."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from rpccluster.testing import RunningCluster, wait_until

__all__ = ["SECTIONS", "Reply", "ask", "group", "pid", "port", "raw", "tokens"]

MakeCluster = Callable[..., RunningCluster]

SECTIONS = {"metrics": {"bind": "tcp://127.0.0.1:0"}, "web": {"bind": "tcp://localhost:0"}}
TOKEN = "a token of many bytes"


class Reply(NamedTuple):
    """What was answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, read."""
        return json.loads(self.body)


def group(cluster: RunningCluster) -> dict[str, Any]:
    """The group of the page; empty if there is none."""
    found: dict[str, Any] = next((each for each in cluster.status()["groups"] if each["name"] == "web"), {})
    return found


def port(cluster: RunningCluster, place: int = -1) -> int:
    """The port of one of the page's listeners, in their order: the last one is the page's own."""
    return int(group(cluster)["listeners"][place].rpartition(":")[2])


def pid(cluster: RunningCluster, *others: int) -> int:
    """The pid of the page's process, which is ready and none of ``others``."""

    def ready() -> int:
        found = [each["pid"] for each in group(cluster).get("processes", []) if each["state"] == "ready"]
        return found[-1] if found and found[-1] not in others else 0

    return wait_until(ready)


def ask(at: int, path: str = "/", method: str = "GET", body: bytes | None = None, **headers: str) -> Reply:
    """Send one request, and read the answer; ``_`` in the name of a header stands for a dash."""
    connection = http.client.HTTPConnection("127.0.0.1", at, timeout=30.0)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()


def raw(at: int, data: bytes, *, seconds: float = 30.0) -> bytes:
    """Send ``data``, and return all that comes until the other side closes."""
    with socket.create_connection(("127.0.0.1", at), timeout=seconds) as sock:
        received = b""
        with contextlib.suppress(ConnectionError):  # it is closed before all has been read
            sock.sendall(data)
        with contextlib.suppress(ConnectionResetError):
            while chunk := sock.recv(65536):
                received += chunk
        return received


def tokens(folder: Path) -> Path:
    """A file with the token of somebody who may act."""
    path = folder / "tokens"
    path.write_text(f"alice {TOKEN.replace(' ', '-')}\n")
    path.chmod(0o600)
    return path
