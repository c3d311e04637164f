"""What wakes a made-up master: its selector, its inbox of signals, and its watch of files."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from rpccluster.system.files import FileWatch

from ..world.process import Process
from ..world.world import World

if TYPE_CHECKING:
    pass

__all__ = ["Inbox", "Selector", "Watch"]


class Selector(selectors.BaseSelector):
    """Never waits: the world has waited already. What is ready comes in an order that the seed chooses."""

    def __init__(self, world: World, process: Process) -> None:
        self._world = world
        self._process = process
        self._keys: dict[int, selectors.SelectorKey] = {}  # by descriptor, in the order in which they came

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        number = self._number(fileobj)
        if number in self._keys:
            raise KeyError(f"{fileobj!r} is already registered")
        return self._set(number, fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        key = self._keys.pop(self._number(fileobj))
        self._world.unwatch(key.fd)
        return key

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._set(self._keys[self._number(fileobj)].fd, fileobj, events, data)

    def _set(self, number: int, fileobj: Any, events: int, data: Any) -> selectors.SelectorKey:
        self._keys[number] = key = selectors.SelectorKey(fileobj, number, events, data)
        self._world.watch(number, self._process, _poll_events(events))
        return key

    def _number(self, fileobj: Any) -> int:
        """Return the descriptor of ``fileobj``; of a closed one, that under which it is registered."""
        number: int = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        if number >= 0:
            return number
        for key in self._keys.values():
            if key.fileobj is fileobj:
                return key.fd
        raise ValueError(f"{fileobj!r} is closed")

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys[self._number(fileobj)]

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        come = self._world.come
        found = [(key, _selected(come[number]) & key.events) for number, key in self._keys.items() if number in come]
        found = [entry for entry in found if entry[1]]
        if len(found) > 1:
            self._world.random.shuffle(found)
        self._world.go_on_meanwhile(0.1)  # what comes now is seen in the next turn
        return found

    def close(self) -> None:
        for number in self._keys:
            self._world.unwatch(number)
        self._keys.clear()


def _poll_events(events: int) -> int:
    return (1 if events & selectors.EVENT_READ else 0) | (4 if events & selectors.EVENT_WRITE else 0)


def _selected(come: int) -> int:
    return (selectors.EVENT_READ if come & ~4 else 0) | (selectors.EVENT_WRITE if come & ~1 else 0)


_NOTHING = contextlib.nullcontext()


class Inbox:
    """The signals of a made-up master; a socket turns readable with each."""

    def __init__(self) -> None:
        self._numbers: list[int] = []
        self._read_end, self._write_end = socket.socketpair()
        for end in (self._read_end, self._write_end):
            end.setblocking(False)

    def note(self, signum: int) -> None:
        if signum not in self._numbers:
            self._numbers.append(signum)
        with contextlib.suppress(BlockingIOError):
            self._write_end.send(b"s")

    @property
    def has_any(self) -> bool:
        """Whether a signal was not taken yet."""
        return bool(self._numbers)

    def waiting(self) -> AbstractContextManager[None]:
        return _NOTHING

    def fileno(self) -> int:
        return self._read_end.fileno()

    def drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._read_end.recv(512):
                pass

    def take(self) -> list[int]:
        numbers, self._numbers = self._numbers, []
        return numbers

    def close(self) -> None:
        self._read_end.close()
        self._write_end.close()


class Watch(FileWatch):
    """A watch of files that the world tells of changes: closing a real one takes the kernel long."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._changes, self._told = socket.socketpair()
        self._descriptor = self._changes.fileno()
        self._changes.setblocking(False)
        world.watches.append(self)

    def tell(self) -> None:
        """A file has changed."""
        if self.is_open:
            self._told.send(b"c")

    def follow(self, paths: Iterable[str]) -> bool:
        return not self._world.removed or all(os.path.exists(path) for path in paths)

    def close(self) -> None:
        self._descriptor = -1
        self._changes.close()
        self._told.close()
