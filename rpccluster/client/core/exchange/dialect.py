"""How a client's values become bytes and back, and a reply's error an exception. Pure.

`DIALECT` is this project's way; `rpccluster.compat.msgpackrpc` speaks the old library's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from rpccluster.client.core.exchange.remote import remote_error
from rpccluster.protocol.codec import make_packer, make_unpacker, unpack

__all__ = ["DIALECT", "Dialect"]


class Dialect(NamedTuple):
    """``packer()`` and ``unpacker(max_message_size, max_container)`` are made anew for each connection.

    ``unpack`` is for one whole value, arrays as keys of maps included; it raises `ProtocolError`.
    """

    packer: Callable[[], Any]
    unpacker: Callable[[int, int], Any]
    unpack: Callable[[Any], Any]
    to_error: Callable[[object], Exception]


DIALECT = Dialect(make_packer, make_unpacker, unpack, remote_error)
