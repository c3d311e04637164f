"""The client's names of msgpack-rpc-python 0.4: ``import rpccluster.compat.msgpackrpc as msgpackrpc``.

The same as there: the bytes on the wire, the types of strings that arrive, and the errors. Better than there: threads
may share a client, it reconnects, and a late reply is never taken for another call's.
"""

from __future__ import annotations

from rpccluster.compat.msgpackrpc import error
from rpccluster.compat.msgpackrpc.address import Address
from rpccluster.compat.msgpackrpc.client import Client
from rpccluster.compat.msgpackrpc.future import Future

__all__ = ["Address", "Client", "Future", "error"]
