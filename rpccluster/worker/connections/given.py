"""The data of a connection that moves to another process, beside its socket. Pure; runs in the worker."""

from __future__ import annotations

from typing import Any, NamedTuple

from rpccluster.identity import NOBODY, Identity

__all__ = ["Given", "address_of", "peer_of"]

_UNIX = "a Unix socket"


class Given(NamedTuple):
    """The data of a connection, beside its socket; see `rpccluster.ipc.messages.Give`.

    One that ``is_entering`` has yet to pass the challenge, which begins anew. ``unread_until`` is in monotonic seconds.
    """

    peer: str
    is_eof: bool
    input: bytes
    output: bytes
    identity: Identity = NOBODY
    is_entering: bool = False
    waited: float = 0.0
    unread_until: float = 0.0


def peer_of(address: Any) -> str:
    """Return the text that names a client in log lines, for an ``address`` of accept(2) or `Give`.

    Connections keep this text instead of the address, which takes more than twice the memory.
    """
    if isinstance(address, (tuple, list)) and len(address) >= 2:
        host, port = address[:2]
        return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
    return _UNIX


def address_of(peer: str) -> list[Any]:
    """Return the address of ``peer``, as `Give` has it."""
    if peer == _UNIX:
        return []
    host, _, port = peer.rpartition(":")
    return [host.strip("[]"), int(port)]
