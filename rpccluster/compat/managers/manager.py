"""The manager: which queues it has, where it is, and the proxies that it makes.

`BaseManager.start` starts a keeper of the program's own; `BaseManager.connect` finds one that another program has
started, or that of a cluster. Runs in every process of the program.
"""

from __future__ import annotations

import hashlib
import inspect
import multiprocessing
import queue
from multiprocessing import queues
from typing import Any, Callable, ClassVar

from rpccluster import Client
from rpccluster.address import Address, TCPAddress, unix_address
from rpccluster.compat.managers.own_keeper import OwnKeeper
from rpccluster.compat.managers.proxy import PATIENCE_SECONDS, QueueProxy

__all__ = ["BaseManager"]

_QUEUES = (queue.Queue, queue.SimpleQueue, queues.Queue, queues.SimpleQueue)


class BaseManager:
    """A manager of queues at ``address``: a path, or a pair of host and port; None: a path of its own.

    Who connects needs the same ``authkey``, bytes of any length: its SHA-256 in hexadecimal is the keeper's key. None
    is that of this process, which its children have, too; b"" is none, for a keeper that asks for none.
    """

    _registry: ClassVar[set[str]] = set()  # the names of the queues, which are those of the methods

    def __init__(self, address: Any = None, authkey: bytes | None = None, *_: Any, **__: Any) -> None:
        self._address = address
        self._authkey = bytes(multiprocessing.current_process().authkey if authkey is None else authkey)
        self._process: OwnKeeper | None = None

    @classmethod
    def register(cls, typeid: str, callable: Callable[..., Any] | None = None, *refused: Any, **also: Any) -> None:
        """Give the class a method ``typeid``, which returns the queue of this name.

        What ``callable`` returns is not used. Raises TypeError for what is no queue.
        """
        is_other_class = inspect.isclass(callable) and not issubclass(callable, _QUEUES)
        if is_other_class or any(each is not None for each in (*refused, *also.values())):
            raise TypeError(f"cannot register {typeid!r}: rpccluster.compat.managers has queues alone")
        if "_registry" not in cls.__dict__:
            cls._registry = set(cls._registry)
        cls._registry.add(typeid)
        setattr(cls, typeid, _method(typeid))

    @property
    def address(self) -> Any:
        """Where the manager is: a path, or a pair of host and port."""
        return self._address

    def start(self, *_: Any, **__: Any) -> None:
        """Start a keeper in a private folder. It ends, and its folder is removed, with this program.

        Raises RuntimeError, which tells why, if it does not start.
        """
        if self._process is not None:
            raise RuntimeError("the manager is started already")
        address = None if self._address is None else _parsed(self._address)
        self._process = OwnKeeper(address, self._key, sorted(self._registry))
        found = self._process.address
        self._address = (found.host, found.port) if isinstance(found, TCPAddress) else found.path

    def connect(self) -> None:
        """Make sure that the keeper answers. Raises ConnectionError."""
        with Client(_parsed(self._address), timeout=PATIENCE_SECONDS, **self._proof) as client:
            client.call("rpc.ping")

    def shutdown(self) -> None:
        """End the keeper that `start` has started."""
        if self._process is not None:
            self._process.end()

    def join(self, timeout: float | None = None) -> None:
        """Wait until the keeper that `start` has started has ended."""
        if self._process is not None:
            self._process.join(timeout)

    def __enter__(self) -> BaseManager:
        if self._process is None:
            self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()

    @property
    def _key(self) -> str | None:
        return hashlib.sha256(self._authkey).hexdigest() if self._authkey else None

    @property
    def _proof(self) -> dict[str, Any]:
        return {} if self._key is None else {"authkey": self._key}

    def _queue(self, name: str) -> QueueProxy:
        if self._address is None:
            raise RuntimeError("the manager is not started, and has no address to connect to")
        return QueueProxy(_parsed(self._address), name, self._key)


def _method(name: str) -> Callable[[BaseManager], QueueProxy]:
    def method(self: BaseManager, *_: Any, **__: Any) -> QueueProxy:
        return self._queue(name)

    method.__name__ = name
    return method


def _parsed(address: Any) -> Address:
    if isinstance(address, tuple):
        return TCPAddress(address[0] or "127.0.0.1", int(address[1]))
    if isinstance(address, bytes):
        address = address.decode("utf-8", "surrogateescape")
    if not isinstance(address, str):
        raise TypeError(f"found an address of type {type(address).__name__}, expected a path, or a host and a port")
    return unix_address(address)
