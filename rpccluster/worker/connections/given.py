"""What a connection is made of when it moves to another process, beside its socket. Pure; runs in the worker."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["Given", "address_of", "peer_of"]

_UNIX = "a Unix socket"


class Given(NamedTuple):
    """What a connection is made of beside its socket; see `rpccluster.ipc.messages.Give`."""

    peer: str
    is_eof: bool
    input: bytes
    output: bytes


def peer_of(address: Any) -> str:
    """The text that stands for a client at ``address``, as accept(2) or `Give` has it, in log lines.

    Connections keep this text instead of the address, which takes up more than twice as much.
    """
    if isinstance(address, (tuple, list)) and len(address) >= 2:
        host, port = address[:2]
        return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
    return _UNIX


def address_of(peer: str) -> list[Any]:
    """The address of ``peer`` as `Give` has it."""
    if peer == _UNIX:
        return []
    host, _, port = peer.rpartition(":")
    return [host.strip("[]"), int(port)]
