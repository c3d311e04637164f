"""grpcio's server with its thread pool, as its documentation starts it: half the cost of its asyncio server.

A program of its own.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from bench.servers.grpc_messages import METHODS, SERVICE


def sum_(request: Any, context: grpc.ServicerContext) -> Any:
    return METHODS["Sum"][1](result=request.left + request.right)


def echo(request: Any, context: grpc.ServicerContext) -> Any:
    return METHODS["Echo"][1](result=request.value)


def handler(method: str, function: Any) -> Any:
    request, reply = METHODS[method]
    return grpc.unary_unary_rpc_method_handler(
        function, request_deserializer=request.FromString, response_serializer=reply.SerializeToString
    )


if __name__ == "__main__":
    server = grpc.server(ThreadPoolExecutor(max_workers=10))
    handlers = {"Sum": handler("Sum", sum_), "Echo": handler("Echo", echo)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"Listening at: tcp://127.0.0.1:{port}", flush=True)
    server.wait_for_termination()
