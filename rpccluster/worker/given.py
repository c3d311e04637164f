"""What a connection is made of when it moves to another process, beside its socket. Pure; runs in the worker."""

from __future__ import annotations

from typing import Any, NamedTuple

from rpccluster.errors import ProtocolError
from rpccluster.protocol.codec import make_packer
from rpccluster.protocol.shared import Packed

__all__ = ["Given", "packed_again"]


class Given(NamedTuple):
    """What a connection is made of beside its socket; see `rpccluster.ipc.messages.Give`."""

    address: Any
    is_eof: bool
    input: bytes
    output: bytes


def packed_again(messages: list[Any]) -> list[bytes | Packed]:
    """The bytes of messages that have not begun. Raises the error that stands for one that never will."""
    pack = make_packer().pack
    again: list[bytes | Packed] = []
    for message in messages:
        if isinstance(message, ProtocolError):
            raise message
        again.append(message if type(message) is Packed else pack(message))
    return again
