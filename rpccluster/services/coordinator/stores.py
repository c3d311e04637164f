"""Opens the store that the options name, so that its waits let the loop go on. Runs in the coordinator."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import gevent

from rpccluster.config.sections.leadership import LeadershipOptions
from rpccluster.leading.file_store import FileStore
from rpccluster.leading.store import Store

__all__ = ["Access"]

_T = TypeVar("_T")


class Access:
    """The access to the store of one cluster."""

    def __init__(self, options: LeadershipOptions) -> None:
        self.address = str(options.engine)
        self._options = options

    def open(self, remembered: bytes) -> Store:
        """Open the store, and go on with the session that was ``remembered``. Raises `StoreDown`."""
        options = self._options
        addresses = [str(address) for address in options.advertise]
        if options.engine.is_file:
            return FileStore(options.engine.path, options.session_timeout, addresses, remembered)
        logging.getLogger("kazoo").setLevel(logging.ERROR)  # what it has to say is said here, and not twice a second
        from kazoo.handlers.gevent import SequentialGeventHandler

        from rpccluster.leading.zookeeper_store import ZooKeeperStore

        return ZooKeeperStore(
            options.engine,
            options.session_timeout,
            addresses,
            remembered,
            password=options.password_file.password,
            handler=SequentialGeventHandler(),
        )

    def call(self, method: Callable[..., _T], *arguments: Any) -> _T:
        """Call a method of the store; meanwhile other greenlets run. Raises as the method does."""
        if self._options.engine.is_file:  # it waits for the disk
            found: _T = gevent.get_hub().threadpool.apply(method, arguments)
            return found
        return method(*arguments)
