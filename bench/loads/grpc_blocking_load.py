"""grpcio's blocking client: a call of the stub, and its futures for calls that are made together."""

from __future__ import annotations

from typing import Any

import grpc

from bench.loads.closed_loop import parse, run
from bench.loads.grpc_load import CALLS, function_of
from bench.servers.grpc_messages import METHODS


def call(method: str, fields: dict[str, Any]) -> Any:
    return function(request_class(**fields)).result


def call_all(count: int, method: str, fields: dict[str, Any]) -> list[Any]:
    futures = [function.future(request_class(**fields)) for _ in range(count)]
    return [future.result().result for future in futures]


if __name__ == "__main__":
    options = parse()
    request_class = METHODS[options.method.capitalize()][0]
    function = function_of(grpc.insecure_channel(f"127.0.0.1:{options.port}"), options.method)
    fields, expected = CALLS[options.method]
    run(options, call, call_all, {options.method: ((fields,), expected)})
