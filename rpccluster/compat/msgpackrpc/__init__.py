"""The client's names of msgpack-rpc-python 0.4: ``import rpccluster.compat.msgpackrpc as msgpackrpc``.

What stays as it was there: the bytes on the wire, what arrives as bytes or str, and which error is raised when.
What is better: threads may share a client, it reconnects, and a late reply answers nobody.
"""

from __future__ import annotations

from rpccluster.compat.msgpackrpc import error
from rpccluster.compat.msgpackrpc.address import Address
from rpccluster.compat.msgpackrpc.client import Client
from rpccluster.compat.msgpackrpc.future import Future

__all__ = ["Address", "Client", "Future", "error"]
