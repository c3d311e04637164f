"""Every error of the package, under one root. Imports nothing; every process and every layer uses it.

RPCClusterError
├── AddressError           an address that cannot be parsed
├── StartError             the cluster cannot start; carries the exit code
│   └── ConfigError        the configuration is at fault; carries every fault
├── ServiceNotLoaded       the service could not be imported or made
├── ServiceUnfit           the service cannot serve as it is
├── UnknownMessage         a packet on a channel that this version does not know
├── TruncatedDescriptors   descriptors were lost on a channel
├── IllegalTransition      an event that a state does not allow
├── ProtocolError          the peer's bytes are not MessagePack-RPC
│   └── LimitExceeded      or a message of it is larger than it may be; carries the limit's name
├── CallError              a call of the client did not bring its result
│   ├── RemoteError        the method raised; carries type and message
│   │   ├── NoMethodError
│   │   └── ArgumentError
│   └── CallTimeout
├── ConnectFailed          no connection could be had
└── ConnectionLost         the connection ended under a call
    ├── Lost               the call may have run
    └── NotSent            the call certainly did not run
"""

from __future__ import annotations

__all__ = [
    "AddressError",
    "ArgumentError",
    "CallError",
    "CallTimeout",
    "ConfigError",
    "ConnectFailed",
    "ConnectionLost",
    "IllegalTransition",
    "LimitExceeded",
    "Lost",
    "NoMethodError",
    "NotSent",
    "ProtocolError",
    "RPCClusterError",
    "RemoteError",
    "ServiceNotLoaded",
    "ServiceUnfit",
    "StartError",
    "TruncatedDescriptors",
    "UnknownMessage",
]

EXIT_FAULT = 1
EXIT_NO_WORKER = 3
EXIT_NO_SERVICE = 4


class RPCClusterError(Exception):
    """The root of every error that this package raises on purpose."""


class AddressError(RPCClusterError, ValueError):
    """An address that is neither ``tcp://HOST:PORT``, ``HOST:PORT`` nor ``unix:///path``."""


class StartError(RPCClusterError):
    """The cluster cannot start, or go on starting. ``exit_code`` is what the process ends with."""

    def __init__(self, message: str, exit_code: int = EXIT_FAULT) -> None:
        super().__init__(message, exit_code)
        self.message = message
        self.exit_code = exit_code

    def __str__(self) -> str:
        return self.message


class ConfigError(StartError):
    """The configuration is at fault. ``faults`` holds one line for each fault, in the order of the file."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults), EXIT_FAULT)
        self.faults = faults

    def __reduce__(self) -> tuple[type, tuple[list[str]]]:
        return type(self), (self.faults,)


class ServiceNotLoaded(RPCClusterError):
    """The service could not be imported or made; the text says why, with the traceback of its own code."""


class ServiceUnfit(RPCClusterError):
    """The object cannot serve: it has no methods, or one that cannot be called as it is."""


class UnknownMessage(RPCClusterError):
    """A packet on a channel that does not decode to a message of this version.

    ``refused`` is its first field, by which to refuse the descriptors that came with it; None if it is no number.
    """

    def __init__(self, text: str, refused: int | None = None) -> None:
        super().__init__(text)
        self.refused = refused


class TruncatedDescriptors(RPCClusterError, OSError):
    """Descriptors were lost on the way: this process has no room for more of them. ``data`` came without them."""

    def __init__(self, text: str, data: bytes = b"") -> None:
        super().__init__(text)
        self.data = data


class IllegalTransition(RPCClusterError):
    """An event that the present state does not allow. Nothing was changed."""


class ProtocolError(RPCClusterError):
    """The peer's bytes are not MessagePack-RPC, or pass a limit. The connection cannot go on."""


class LimitExceeded(ProtocolError):
    """A message passes the option ``limit``."""

    def __init__(self, limit: str, message: str) -> None:
        super().__init__(limit, message)
        self.limit = limit
        self.message = message

    def __str__(self) -> str:
        return self.message


class CallError(RPCClusterError):
    """A call that was made did not bring its result."""


class RemoteError(CallError):
    """The method raised. ``type`` is the exception's class name there, ``message`` its text.

    ``type`` is empty when the server's error was not of the form ``Class: message``.
    """

    def __init__(self, type: str, message: str) -> None:
        super().__init__(type, message)
        self.type = type
        self.message = message

    def __str__(self) -> str:
        return f"{self.type}: {self.message}" if self.type else self.message


class NoMethodError(RemoteError):
    """The server has no such method, or it is private."""


class ArgumentError(RemoteError):
    """The params do not fit the method's signature."""


class CallTimeout(CallError, TimeoutError):
    """No reply came within the call's timeout. The call may still be running."""


class ConnectFailed(RPCClusterError, ConnectionError):
    """No connection could be had within ``connect_timeout``. Nothing was sent."""


class ConnectionLost(RPCClusterError, ConnectionError):
    """The connection ended under a call; its subclass says whether the call may have run."""


class Lost(ConnectionLost):
    """The call was sent, at least in part, and may have run. It is not sent again by itself."""


class NotSent(ConnectionLost):
    """The call certainly did not run: nothing of it left this process, or the server says that it did not read it."""
