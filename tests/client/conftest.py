"""What the client's tests share: a server that behaves, and clients that are closed at the end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rpccluster.client import Client

from .servers import Server, serve


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that answers."""
    with serve() as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    """A client of that server."""
    with Client(server.address, timeout=10) as client:
        yield client
