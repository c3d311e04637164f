"""The errors of msgpack-rpc-python, by its names and below this project's root."""

from __future__ import annotations

from typing import Any

from rpccluster.errors import RPCClusterError

__all__ = ["ArgumentError", "CallError", "NoMethodError", "RPCError", "TimeoutError", "TransportError"]


class RPCError(RPCClusterError):
    """The method raised. ``args[0]`` is the reply's error, as it came."""

    CODE = ".RPCError"

    def __init__(self, message: Any) -> None:
        super().__init__(message)

    @property
    def code(self) -> str:
        """The name by which the error is known across languages."""
        return self.CODE

    def to_msgpack(self) -> list[Any]:
        """Return the error's form in a message."""
        return [self.args[0]]

    @staticmethod
    def from_msgpack(message: Any) -> RPCError:
        """Return the error that ``message`` stands for."""
        return RPCError(message)


class TimeoutError(RPCError):
    """No reply came within the client's timeout."""

    CODE = ".TimeoutError"


class TransportError(RPCError):
    """The client could not connect, or the connection ended during the call."""

    CODE = ".TransportError"


class CallError(RPCError):
    """The call itself was wrong."""

    CODE = ".NoMethodError"


class NoMethodError(CallError):
    """The server has no such method."""

    CODE = ".CallError.NoMethodError"


class ArgumentError(CallError):
    """The params do not fit the method."""

    CODE = ".CallError.ArgumentError"
