"""The addresses of the clusters that a registry lists: the last good list, while the registry is away or rubbish.

Owns the thread that follows it, from the first question of a process on; a forked child has its own. Each fault is told
once in the log (``rpccluster.client``), until it has changed.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from rpccluster.address import parse_address
from rpccluster.client.registry.file_source import FileSource
from rpccluster.client.registry.zookeeper_source import ZooKeeperSource
from rpccluster.client.threads.native import start_thread
from rpccluster.errors import AddressError, NotSent
from rpccluster.leading.address import StoreAddress
from rpccluster.leading.registry import SERVING, read_entry

__all__ = ["Registry", "is_registry", "list_of"]

_logger = logging.getLogger("rpccluster.client")
_MOST_TOLD = 1000


def is_registry(addresses: Any) -> bool:
    """Return whether ``addresses`` is the address of a registry, not of servers."""
    return isinstance(addresses, str) and addresses.strip().startswith(("zookeeper:", "file:"))


class _Source(Protocol):
    def follow(
        self, tell: Callable[[Mapping[str, bytes]], None], fail: Callable[[str], None], end: threading.Event
    ) -> None:
        """Tell the list whenever it has changed, and of failures, until ``end``."""


class Registry:
    """The registry at ``where``: ``zookeeper://HOST:PORT,…/PATH`` or ``file:PATH.json``. Raises `AddressError`."""

    def __init__(self, where: str) -> None:
        self._address = StoreAddress.parse(where)
        self._source: _Source
        if self._address.is_file:
            self._source = FileSource(self._address.path)
        else:
            self._source = ZooKeeperSource(",".join(self._address.hosts), self._address.path)
        #: The addresses of the members; None as long as there was no list. Each new list is another object.
        self.addresses: tuple[str, ...] | None = None
        #: Why there is no newer list; empty if there is none.
        self.fault = ""
        self._told: set[tuple[str, str]] = set()
        self._end: threading.Event | None = None
        self._is_followed = threading.Lock()  # a flag that only one thread can raise; none waits for it

    def __str__(self) -> str:
        return str(self._address)

    @property
    def why_empty(self) -> str:
        """Why it lists no server."""
        return self.fault or ("it was not read yet" if self.addresses is None else "no server is listed")

    def follow(self) -> None:
        """Follow the registry, if this process does not yet. Raises `NotSent` if no thread can be had."""
        if not self._is_followed.acquire(False):
            return
        self._end = end = threading.Event()
        weakref.finalize(self, end.set).atexit = False
        try:
            start_thread(_Following(self._source, weakref.ref(self), end).run, "rpccluster registry")
        except Exception as error:
            self._is_followed.release()
            raise NotSent(f"no thread can be had to follow {self}: {error}; the call did not run") from None

    def close(self) -> None:
        """Follow it no longer."""
        if self._end is not None:
            self._end.set()

    def after_fork(self) -> None:
        """Begin anew in a forked child, with the last list; the thread is the parent's."""
        self._end, self._is_followed = None, threading.Lock()

    def take(self, values: Mapping[str, bytes]) -> None:
        """Take a new list: the values of the members by their ids."""
        addresses = tuple(dict.fromkeys(list_of(values, self._tell_once)))
        if addresses != self.addresses:
            self.addresses = addresses
        self.fault = ""

    def note_fault(self, fault: str) -> None:
        """Note that the list could not be read: the last one stays."""
        if fault != self.fault:
            self.fault = fault
            kept = "no list yet" if self.addresses is None else "the last list stays"
            _logger.warning("cannot read the registry %s: %s (%s)", self, fault, kept)

    def _tell_once(self, name: str, fault: str) -> None:
        if (name, fault) not in self._told and len(self._told) < _MOST_TOLD:
            self._told.add((name, fault))
            _logger.warning("skipped the entry %.200r of the registry %s: %s", name, self, fault)


class _Following:
    """What the thread does; it does not keep the registry alive."""

    def __init__(self, source: _Source, registry: weakref.ref[Registry], end: threading.Event) -> None:
        self._source = source
        self._registry = registry
        self._end = end

    def run(self) -> None:
        """Follow until the end."""
        self._source.follow(self._tell, self._fail, self._end)

    def _tell(self, values: Mapping[str, bytes]) -> None:
        registry = self._registry()
        if registry is not None and not self._end.is_set():
            registry.take(values)

    def _fail(self, fault: str) -> None:
        registry = self._registry()
        if registry is not None and not self._end.is_set():
            registry.note_fault(fault)


def list_of(values: Mapping[str, bytes], skip: Callable[[str, str], None]) -> list[str]:
    """Return the first address of each serving member; ``skip`` is told the name and the fault of each rubbish one."""
    addresses = []
    for name in sorted(values):
        try:
            entry = read_entry(values[name])
            address = str(parse_address(entry.addresses[0]))
        except (ValueError, AddressError) as error:
            skip(name, str(error))
            continue
        if entry.state == SERVING:
            addresses.append(address)
    return addresses
