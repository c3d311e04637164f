"""Converts a client's values to bytes and back, and a reply's error to an exception. Pure.

`DIALECT` is this project's; `rpccluster.compat.msgpackrpc` has the old library's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from rpccluster.client.core.exchange.remote import remote_error
from rpccluster.protocol.codec import make_packer, make_unpacker, unpack
from rpccluster.protocol.compiled import WIRE

__all__ = ["DIALECT", "Dialect"]


class Dialect(NamedTuple):
    """A way to pack and unpack values.

    Each connection makes its own ``packer()`` and ``unpacker(max_message_size, max_container)``.
    ``unpack`` decodes one whole value, with arrays as keys of maps, and raises `ProtocolError`.
    """

    packer: Callable[[], Any]
    unpacker: Callable[[int, int], Any]
    unpack: Callable[[Any], Any]
    to_error: Callable[[object], Exception]
    is_bounded: bool = True  # whether calls have deadlines at the server, where it offers that
    wire: Any = None  # `rpccluster.protocol.compiled.WIRE`, whose types are those of this project


DIALECT = Dialect(make_packer, make_unpacker, unpack, remote_error, wire=WIRE)
