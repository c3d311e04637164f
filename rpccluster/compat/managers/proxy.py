"""A queue of a manager, with the methods of ``multiprocessing.JoinableQueue``. Runs in every process of the program."""

from __future__ import annotations

import queue
from typing import Any, NoReturn

from rpccluster import Queue
from rpccluster.address import Address
from rpccluster.errors import QueueFull

__all__ = ["QueueProxy"]

PATIENCE_SECONDS = 5.0  # in which a keeper that was killed may be back


class _Connection:
    """What a program may want of a proxy's connection: to close it."""

    def __init__(self, proxy: QueueProxy) -> None:
        self._proxy = proxy

    def close(self) -> None:
        """Close the connection; the next call makes another one."""
        self._proxy._disconnect()


class _Local:
    """Stands for the thread's part of a proxy: ``proxy._tls.connection``."""

    def __init__(self, proxy: QueueProxy) -> None:
        self._proxy = proxy

    @property
    def connection(self) -> _Connection:
        return _Connection(self._proxy)

    @connection.deleter
    def connection(self) -> None:
        self._proxy._disconnect()


class QueueProxy:
    """The queue ``name`` of the manager at ``address``; threads may share it, and forked children, too.

    An item is done at `task_done`; that of a process which ends before is given to another one.
    """

    def __init__(self, address: Address, name: str, key: str | None) -> None:
        self._address = address
        self._name = name
        self._key = key
        self._tls = _Local(self)
        self._queue = self._connected()

    def _connected(self) -> Queue:
        return Queue(self._address, self._name, authkey=self._key, timeout=PATIENCE_SECONDS)

    def _disconnect(self) -> None:
        before, self._queue = self._queue, self._connected()
        before.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name} at {self._address}>"

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"found {name!r}: rpccluster.compat.managers has queues alone, with put, get, task_done …")

    def put(self, obj: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put a value that MessagePack has. Raises `queue.Full`, and TypeError for another value."""
        try:
            self._queue.put(obj, timeout=_seconds(block, timeout))
        except QueueFull as error:
            raise queue.Full from error

    def put_nowait(self, obj: Any) -> None:
        """Put a value if there is room. Raises `queue.Full`."""
        self.put(obj, False)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take a value. Raises `queue.Empty`."""
        item = self._queue.get(_seconds(block, timeout))
        if item is None:
            raise queue.Empty
        return item.value

    def get_nowait(self) -> Any:
        """Take a value if there is one. Raises `queue.Empty`."""
        return self.get(False)

    def task_done(self) -> None:
        """Say that the value is done which this thread has held for longest.

        Raises ValueError if this process holds none, `rpccluster.LeaseLost` if another one has it by now.
        """
        self._queue.task_done()

    def join(self) -> None:
        """Wait until each value is done."""
        self._queue.join()

    def qsize(self) -> int:
        """Return how many values can be taken now."""
        return int(self._queue.stats()["ready"])

    def empty(self) -> bool:
        """Return whether no value can be taken now."""
        return self.qsize() == 0


def _seconds(block: bool, timeout: float | None) -> float | None:
    return timeout if block else 0
