"""The server's methods as attributes: ``client.proxy.sum(1, 2)``. Both faces and the pools have it. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["Proxy"]


class Proxy:
    """Calls the method of its name; its attributes are methods with a dot in their names.

    Keyword arguments are those of the client's ``call``.
    """

    def __init__(self, call: Callable[..., Any], name: str = "") -> None:
        self._call = call
        self._name = name

    def __getattr__(self, name: str) -> Proxy:
        if name.startswith("_"):
            raise AttributeError(f"{name!r}: names that start with an underscore are no methods of a server")
        return Proxy(self._call, f"{self._name}.{name}" if self._name else name)

    def __call__(self, *params: Any, **options: Any) -> Any:
        """Make the call. Returns its result, or on asyncio the coroutine that does."""
        if not self._name:
            raise TypeError("found no method, expected its name as in proxy.sum(1, 2)")
        return self._call(self._name, *params, **options)

    def __repr__(self) -> str:
        return f"<Proxy {self._name}>" if self._name else "<Proxy>"
