"""A WSGI application that serves JSON-RPC-like calls, for gunicorn's gevent worker. Imported by gunicorn."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Callable

METHODS: dict[str, Callable[..., Any]] = {"sum": lambda *numbers: sum(numbers), "echo": lambda value: value}


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer ``{"id": N, "method": …, "params": […]}`` with ``{"id": N, "error": null, "result": …}``."""
    request = json.loads(environ["wsgi.input"].read())
    try:
        error, result = None, METHODS[request["method"]](*request["params"])
    except Exception as problem:
        error, result = f"{type(problem).__name__}: {problem}", None
    body = json.dumps({"id": request["id"], "error": error, "result": result}).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
