"""Every error of the package, under one root. Imports nothing; every process and layer uses it.

RPCClusterError
├── AddressError           an address cannot be parsed
├── StartError             the cluster cannot start; carries the exit code
│   └── ConfigError        the configuration is at fault; carries every fault
├── NotWritten             a value cannot be written to the configuration's file
├── ServiceNotLoaded       the service could not be imported or made
├── PluginNotLoaded        the plugin could not be imported, or its command cannot be run
├── TasksNotLoaded         the targets of a pool could not be imported
├── SettingsRefused        the service refuses its settings; carries every fault
├── ServiceUnfit           the service has no methods, or one that cannot be served
├── UnknownMessage         this version does not know a packet on a channel
├── TruncatedDescriptors   a message lost its descriptors on a channel
├── IllegalTransition      a state does not allow an event
├── ProtocolError          the peer's bytes are not MessagePack-RPC
│   └── LimitExceeded      a message passes a limit; carries the limit's name
├── PoolFull               as many tasks wait as may; the task was not taken in
├── TaskFailure            a task ended without a result; carries kind, traceback, attempt, pid
├── StoreDown              the store of the lead does not answer, or refuses
├── Refusal                a service of the package's own refuses a call, as its callers expect
│   ├── LeaseLost          an item of a queue is not held any more, or is another's by now
│   ├── QueueFull          a queue has no room; the item was not taken in
│   ├── NoSuchQueue        there is no queue of this name
│   ├── StaleToken         the token is older than one that the queue has seen
│   └── QueueDown          the queues' store cannot be reached
├── EngineFailed           what keeps the items of the queues can neither go on nor answer
├── CallError              a call ended without a result
│   ├── RemoteError        the method raised; carries type and message
│   │   ├── NoMethodError  the server has no such method
│   │   ├── ArgumentError  the params do not fit the method
│   │   ├── NotLeader      the cluster does not lead, and the method needs that; carries who does
│   │   └── LeadLost       the cluster lost the lead while the method ran
│   └── CallTimeout        no reply came in time
├── SoftTimeLimit          a task has passed its soft limit; raised in the task
├── ConnectFailed          the client could not connect
│   └── AuthenticationFailed  a key was not proved, by the client or by the server
└── ConnectionLost         the connection ended during a call
    ├── Lost               the call may have run
    └── NotSent            the call certainly did not run
        └── TooManyWaiting a pool has as many calls that wait as it may have
"""

from __future__ import annotations

#: Those that `rpccluster` has, for whoever calls or serves; the others stay within the package.
__all__ = [
    "AddressError",
    "ArgumentError",
    "AuthenticationFailed",
    "CallError",
    "CallTimeout",
    "ConnectFailed",
    "ConnectionLost",
    "LeadLost",
    "LeaseLost",
    "Lost",
    "NoMethodError",
    "NoSuchQueue",
    "NotLeader",
    "NotSent",
    "PoolFull",
    "ProtocolError",
    "QueueDown",
    "QueueFull",
    "RPCClusterError",
    "RemoteError",
    "SoftTimeLimit",
    "StaleToken",
    "TaskFailure",
    "TooManyWaiting",
]

EXIT_FAULT = 1
EXIT_NO_WORKER = 3
EXIT_NO_SERVICE = 4
EXIT_ESSENTIAL = 5


class RPCClusterError(Exception):
    """The root of every error that this package raises on purpose."""


class AddressError(RPCClusterError, ValueError):
    """An address that is neither ``tcp://HOST:PORT``, ``HOST:PORT`` nor ``unix:///path``."""


class StartError(RPCClusterError):
    """The cluster cannot start. ``exit_code`` is the exit code of the process."""

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


class NotWritten(RPCClusterError):
    """A value cannot be written to its file, which is as it was. The text says where and why."""


class ServiceNotLoaded(RPCClusterError):
    """The service could not be imported or made; the text says why, with the traceback of its own code."""


class PluginNotLoaded(RPCClusterError):
    """The plugin could not be imported, takes other arguments than it gets, or its command cannot be run."""


class TasksNotLoaded(RPCClusterError):
    """The targets of a pool could not be imported, or its process may not be as its section says."""


class SettingsRefused(RPCClusterError):
    """Settings that the service does not declare so, or that its ``settings_check`` refuses; a line for each fault."""


class ServiceUnfit(RPCClusterError):
    """The object cannot serve: it has no methods, or one that cannot be served."""


class UnknownMessage(RPCClusterError):
    """A packet on a channel does not decode to a message of this version.

    ``refused`` is the packet's first field, the number with which the receiver refuses the descriptors; None if that
    field is no number.
    """

    def __init__(self, text: str, refused: int | None = None) -> None:
        super().__init__(text)
        self.refused = refused


class TruncatedDescriptors(RPCClusterError, OSError):
    """A message lost its descriptors, because this process may open no more. ``data`` is the message without them."""

    def __init__(self, text: str, data: bytes = b"") -> None:
        super().__init__(text)
        self.data = data


class IllegalTransition(RPCClusterError):
    """The present state does not allow the event, which has changed nothing."""


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


class PoolFull(RPCClusterError):
    """As many tasks wait as may (``queue_size``). This one was not taken in, and never runs."""


class TaskFailure(RPCClusterError):
    """A task ended without a result, in its last attempt. It can be pickled; all its texts are plain ones.

    ``kind`` is ``raised`` (``type``, ``message`` and ``traceback`` are those of the task's exception), ``timed_out``,
    ``process_lost``, ``out_of_memory``, ``cancelled``, or ``rejected`` (it has not run, and ``message`` says why).
    ``pid``, ``signal``, ``started_at`` and ``ended_at`` (seconds of the epoch) are None where nobody knows them.
    """

    def __init__(
        self,
        kind: str,
        type: str = "",
        message: str = "",
        traceback: str = "",
        task_id: int = 0,
        attempt: int = 1,
        pid: int | None = None,
        signal: int | None = None,
        started_at: float | None = None,
        ended_at: float | None = None,
    ) -> None:
        super().__init__(kind, type, message)
        self.kind = kind
        self.type = type
        self.message = message
        self.traceback = traceback
        self.task_id = task_id
        self.attempt = attempt
        self.pid = pid
        self.signal = signal
        self.started_at = started_at
        self.ended_at = ended_at

    def __reduce__(self) -> tuple[object, ...]:
        told = (self.kind, self.type, self.message, self.traceback, self.task_id, self.attempt, self.pid, self.signal)
        return self.__class__, (*told, self.started_at, self.ended_at)

    def __str__(self) -> str:
        said = ": ".join(text for text in (self.type, self.message) if text)
        return f"{self.kind}: {said}" if said else self.kind


class StoreDown(RPCClusterError):
    """The store in which clusters agree on who leads does not answer, or refuses what was asked; the text says why."""


class Refusal(RPCClusterError):
    """A service of the package's own refuses a call, for a reason that callers expect: no log line tells of it."""


class LeaseLost(Refusal):
    """The item's lease has ended, or it was acked before: it may have been given to another consumer."""


class QueueFull(Refusal):
    """The queue has no room (``max_size``, ``max_bytes``), and had none within the timeout. The item was not put."""

    def __init__(self, text: str = "", *, is_for_good: bool = False) -> None:
        """``is_for_good``: the queue would have no room if it was empty, so that no wait helps. For keepers."""
        super().__init__(text)
        self.is_for_good = is_for_good


class NoSuchQueue(Refusal):
    """There is no queue of this name, and the keeper makes none (``create``)."""


class StaleToken(Refusal):
    """The leadership token is older than one that this queue has seen. Nothing was changed."""


class QueueDown(Refusal):
    """The keeper cannot reach the store of its queues; a put or an ack may have been carried out."""


class EngineFailed(RPCClusterError):
    """What keeps the items of the queues can neither go on nor answer: the keeper ends, and its successor begins anew.

    The text says what has failed, and what to do.
    """


class CallError(RPCClusterError):
    """A call ended without a result."""


class RemoteError(CallError):
    """The method raised. ``type`` is the name of the exception's class, ``message`` its text.

    ``type`` is empty if the server's error does not have the form ``Class: message``.
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


class NotLeader(RemoteError):
    """This cluster does not lead, so the method did not run. ``message`` is where the lead is, or ``none``."""

    def __init__(self, type: str = "NotLeader", message: str = "none") -> None:
        super().__init__(type, message)

    def __str__(self) -> str:
        return self.message

    @property
    def address(self) -> str | None:
        """The address of the leader; None while nobody leads."""
        return None if self.message == "none" else self.message


class LeadLost(RemoteError):
    """The cluster lost the lead while the method ran; it may have done its work. No client repeats it by itself."""


class CallTimeout(CallError, TimeoutError):
    """No reply came within the call's timeout. The call may still be running."""


class SoftTimeLimit(RPCClusterError):
    """The task has passed its ``soft_timeout``; this is its time to clean up. Raised in the task, by us alone."""


class ConnectFailed(RPCClusterError, ConnectionError):
    """The client could not connect within ``connect_timeout``. Nothing was sent."""


class AuthenticationFailed(ConnectFailed):
    """The server wants a key that this client has not proved, or has not proved that it knows the client's key.

    No call was made.
    """


class ConnectionLost(RPCClusterError, ConnectionError):
    """The connection ended during a call; the subclass says whether the call may have run."""


class Lost(ConnectionLost):
    """The call was sent, at least in part, and may have run. The client does not send it again by itself."""


class NotSent(ConnectionLost):
    """The call certainly did not run: nothing of it left this process, or the server says that it did not read it."""


class TooManyWaiting(NotSent):
    """The pool already has ``max_waiting`` waiting calls. Nothing was sent, and the call is not tried again."""
