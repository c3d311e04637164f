"""The sockets of a pool, and who waits for them. Runs in the program.

The pool's thread waits for all of them. A thread that waits for a result takes those of the processes over meanwhile,
so that the result need not be handed from thread to thread: with one task in flight, that is a fourth of its time. In a
program that gevent has patched there is one greenlet that waits, and nothing to gain.
"""

from __future__ import annotations

import select
import selectors
from typing import Any, Protocol

__all__ = ["Sockets", "sockets"]


class Sockets(Protocol):
    """Each socket has ``data``, which is what waiting returns; a process's is *light*."""

    can_step_aside: bool

    def add(self, descriptor: int, data: Any, *, is_light: bool) -> None: ...

    def watch(self, descriptor: int, data: Any, *, for_room: bool) -> None:
        """Wait for room, too, or no longer; of a light one."""

    def drop(self, descriptor: int, *, is_light: bool) -> None:
        """Forget a socket, before it is closed; again is no error."""

    def wait(self, seconds: float | None) -> list[Any]:
        """Return the data of those with something to do, or nothing after ``seconds``."""

    def wait_for_light(self, seconds: float | None) -> list[Any]:
        """Do so for the light ones alone, while the pool's thread has stepped aside."""

    def step_aside(self) -> None:
        """Have `wait` take no notice of the light ones."""

    def step_back(self) -> None:
        """Have it take notice of them again."""

    def close(self) -> None:
        """Let go of all, before they are closed; the other methods but `add` and the waits do nothing then."""


class _Native:
    """The light ones are in an epoll(7) of their own, which stands in the other one, or not."""

    can_step_aside = True

    def __init__(self) -> None:
        self._all, self._light = select.epoll(), select.epoll()
        self._data: dict[int, Any] = {}
        self._of_light = self._light.fileno()
        self._all.register(self._of_light, select.EPOLLIN)

    def add(self, descriptor: int, data: Any, *, is_light: bool) -> None:
        self._data[descriptor] = data
        (self._light if is_light else self._all).register(descriptor, select.EPOLLIN)

    def watch(self, descriptor: int, data: Any, *, for_room: bool) -> None:
        if descriptor in self._data:
            self._light.modify(descriptor, select.EPOLLIN | select.EPOLLOUT if for_room else select.EPOLLIN)

    def drop(self, descriptor: int, *, is_light: bool) -> None:
        if self._data.pop(descriptor, None) is not None:
            (self._light if is_light else self._all).unregister(descriptor)

    def wait(self, seconds: float | None) -> list[Any]:
        found = []
        for descriptor, _ in self._all.poll(seconds):
            if descriptor == self._of_light:
                found += self.wait_for_light(0)
            else:
                found.append(self._data.get(descriptor))
        return found

    def wait_for_light(self, seconds: float | None) -> list[Any]:
        return [self._data.get(descriptor) for descriptor, _ in self._light.poll(seconds)]

    def step_aside(self) -> None:
        self._all.modify(self._of_light, 0)

    def step_back(self) -> None:
        self._all.modify(self._of_light, select.EPOLLIN)

    def close(self) -> None:
        self._data.clear()
        self._all.close()
        self._light.close()


class _Patched:
    """One selector, of whatever gevent has put in the place of the real one."""

    can_step_aside = False

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def add(self, descriptor: int, data: Any, *, is_light: bool) -> None:
        self._selector.register(descriptor, selectors.EVENT_READ, data)

    def watch(self, descriptor: int, data: Any, *, for_room: bool) -> None:
        if self._has(descriptor):
            events = selectors.EVENT_READ | selectors.EVENT_WRITE if for_room else selectors.EVENT_READ
            self._selector.modify(descriptor, events, data)

    def drop(self, descriptor: int, *, is_light: bool) -> None:
        if self._has(descriptor):
            self._selector.unregister(descriptor)

    def _has(self, descriptor: int) -> bool:
        return descriptor in (self._selector.get_map() or ())  # None once it is closed

    def wait(self, seconds: float | None) -> list[Any]:
        return [key.data for key, _ in self._selector.select(seconds)]

    def wait_for_light(self, seconds: float | None) -> list[Any]:
        raise NotImplementedError

    def step_aside(self) -> None:
        raise NotImplementedError

    def step_back(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        self._selector.close()


def sockets() -> Sockets:
    """Return none yet, for this program: gevent takes epoll away from what it patches."""
    return _Native() if hasattr(select, "epoll") else _Patched()
