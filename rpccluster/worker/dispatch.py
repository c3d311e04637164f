"""Which names callers may call, and what an exception becomes on the wire. Runs in the worker; no I/O, no gevent.

A service's methods are collected once, at boot: a call costs one look-up in a dict.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Callable

from rpccluster.errors import ServiceUnfit
from rpccluster.failure import error_text, message_of
from rpccluster.service import RPCMark, Service

__all__ = ["Method", "Registry", "ResultTooLarge", "error_text", "is_misfit", "message_of", "not_found_text"]

#: Turns a function and its limit in seconds, 0 for none, into what is run for a call.
Wrap = Callable[[Callable[..., Any], float], Callable[..., Any]]


class ResultTooLarge(Exception):
    """A method's result, packed, is larger than a message may be. Callers know it by its name."""

    def __init__(self, size: int, most: int) -> None:
        super().__init__(f"found a reply of {size} bytes, expected at most {most} (max_message_size)")


@dataclass(frozen=True)
class Method:
    """One method that callers may call; ``number`` is its place in the registry, counted from 1."""

    name: str
    number: int
    function: Callable[..., Any]
    plain: Callable[..., Any]

    def signature(self) -> str:
        """Its parameters as a person would read them; ``(...)`` where Python does not know."""
        try:
            return str(inspect.signature(self.plain))
        except (TypeError, ValueError):
            return "(...)"


class Registry:
    """The methods of one service, by the names callers use."""

    def __init__(self, service: object, call_timeout: float, wrap: Wrap) -> None:
        """``call_timeout`` is in seconds, 0 for none; ``wrap`` makes a function keep such a limit.

        Raises `ServiceUnfit`.
        """
        self.methods: dict[str, Method] = {}
        self.table: dict[str, Callable[..., Any]] = {}  # what is run for a call, for the hot path
        self.numbers: dict[str, int] = {}
        for name, function, mark in _public_callables(service):
            limit = call_timeout if mark.timeout is None else mark.timeout
            self._add(mark.name or name, wrap(function, limit), function)
        if not self.methods:
            raise ServiceUnfit(f"found no public methods in {type(service).__name__}, expected at least one")
        self._add("rpc.ping", wrap(self.ping, 0), self.ping)
        self._add("rpc.discover", wrap(self.discover, 0), self.discover)

    @property
    def names(self) -> list[str]:
        """All names, in the order of their numbers."""
        return list(self.methods)

    def ping(self) -> str:
        """Answer "pong": the worker is alive."""
        return "pong"

    def discover(self) -> dict[str, dict[str, str]]:
        """Tell all methods: name to ``{"signature": …, "doc": …}``."""
        return {
            method.name: {"signature": method.signature(), "doc": inspect.getdoc(method.plain) or ""}
            for method in self.methods.values()
        }

    def _add(self, name: str, function: Callable[..., Any], plain: Callable[..., Any]) -> None:
        if name in self.methods:
            raise ServiceUnfit(f"found two methods named {name!r}, expected each name once")
        if inspect.iscoroutinefunction(plain):
            raise ServiceUnfit(f"found the coroutine method {name!r}, expected a plain one: gevent makes it concurrent")
        number = len(self.methods) + 1
        self.methods[name] = Method(name, number, function, plain)
        self.table[name] = function
        self.numbers[name] = number


def _public_callables(service: object) -> Iterator[tuple[str, Callable[..., Any], RPCMark]]:
    hidden = set(dir(Service))
    for name in dir(service):
        if name.startswith("_") or name in hidden:
            continue
        if isinstance(inspect.getattr_static(service, name, None), property):
            continue  # looking would run it
        function = getattr(service, name)
        if callable(function) and not inspect.isclass(function):
            yield name, function, getattr(function, "__rpc__", RPCMark(None, None))


def not_found_text(name: object) -> str:
    """The error of a call to a method that is not there, worded as msgpack-rpc-python words it."""
    return f"'{name}' method not found"


def is_misfit(method: Method, params: list[Any]) -> bool:
    """Whether ``params`` do not fit the method's signature."""
    try:
        inspect.signature(method.plain).bind(*params)
    except TypeError:
        return True
    except BaseException:  # a builtin that tells no signature, a service's object with one of its own
        return False
    return False
