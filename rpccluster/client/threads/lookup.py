"""Looks up the addresses of a host name within a time limit, and orders them.

getaddrinfo(3) has no time limit, so it runs in a thread, one for a name at a time, and callers wait for it as long as
they may. An address needs no look-up. In a process that gevent has patched the thread is a greenlet.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Sequence
from itertools import chain, zip_longest
from time import monotonic
from typing import Any

from rpccluster.client.threads.forks import let_go_after
from rpccluster.client.threads.native import this_hub

__all__ = ["Target", "look_up", "numeric", "ordered"]

#: Family and socket address.
Target = tuple[int, Any]


def look_up(host: str, port: int, deadline_at: float) -> list[Target]:
    """Return the targets of a name in the order of attempts, by ``deadline_at``. Raises OSError, UnicodeError."""
    found = numeric(host, port)
    if found is not None:
        return found
    key = host, port, this_hub()
    search = _searches.get(key)
    if search is None:
        search = _searches[key] = _Search(key)
        try:
            search.start()
        except BaseException:  # a signal handler's, perhaps: then the thread may never run, and must not be waited for
            _searches.pop(key, None)
            raise
    if not search.is_over.wait(min(max(0.0, deadline_at - monotonic()), threading.TIMEOUT_MAX)):
        raise TimeoutError("the look-up of its name timed out")
    if isinstance(search.outcome, BaseException):
        raise search.outcome
    return search.outcome


def numeric(host: str, port: int) -> list[Target] | None:
    """Return the target of a host that is an address; None if it is a name."""
    with contextlib.suppress(socket.gaierror, UnicodeError):
        return ordered(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST))
    return None


def ordered(found: Sequence[tuple[Any, ...]]) -> list[Target]:
    """Order targets by turns of their families, the first one's first: RFC 8305, section 4."""
    targets = list(dict.fromkeys((int(family), name) for family, _, _, _, name in found))
    first = [target for target in targets if target[0] == targets[0][0]]
    others = [target for target in targets if target[0] != targets[0][0]]
    return [target for target in chain.from_iterable(zip_longest(first, others)) if target is not None]


class _Search:
    """One look-up; ``outcome`` is what it has found or raised, once ``is_over``."""

    def __init__(self, key: tuple[str, int, Any]) -> None:
        self._key = key
        self.is_over = threading.Event()
        self.outcome: list[Target] | BaseException = []

    def start(self) -> None:
        try:
            threading.Thread(target=self._run, name="rpccluster look-up", daemon=True).start()
        except RuntimeError:  # no thread can be had: then it takes as long as it takes
            self._run()

    def _run(self) -> None:
        try:
            self.outcome = ordered(socket.getaddrinfo(*self._key[:2], type=socket.SOCK_STREAM))
        except BaseException as error:
            self.outcome = error.with_traceback(None)
        _searches.pop(self._key, None)
        self.is_over.set()


_searches: dict[tuple[str, int, Any], _Search] = {}


class _Parents:
    """Drops the look-ups of the parent's threads after a fork."""

    def _after_fork(self) -> None:
        _searches.clear()


_parents = _Parents()
let_go_after(_parents)
