"""The present limits and timeouts of a worker, which may change while it runs. Data; runs in the worker.

A module that needs an option now and then reads it here each time. A module that needs it with every call keeps a copy,
and follows the changes. A change holds for existing connections, and for calls that begin afterwards.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Callable

__all__ = ["LiveOptions", "call_limit"]


@dataclass
class LiveOptions:
    """The options of a worker that may change, by their names in the configuration."""

    call_timeout: float
    stall_warning: float
    max_greenlets: int
    threads: int
    thread_queue: int
    max_pending_calls: int
    max_message_size: int
    max_depth: int
    idle_timeout: float
    message_timeout: float
    write_timeout: float
    worker_connections: int
    tcp_keepalive: int
    authkeys: str
    auth_timeout: float
    access: str
    proxy_from: str
    max_requests: int
    max_requests_jitter: int
    log_level: str
    log_format: str
    access_log: str
    cancel_on_disconnect: bool = False
    _followers: list[Tell] = field(default_factory=list, init=False, repr=False)

    @classmethod
    def of(cls, options: Any) -> LiveOptions:
        """Take the values from the ``options`` of the worker's birth."""
        return cls(**{name: getattr(options, name) for name in _NAMES})

    def follow(self, tell: Tell) -> None:
        """Call ``tell`` after each change."""
        self._followers.append(tell)

    def take(self, options: Mapping[str, Any]) -> None:
        """Set those of ``options`` that a worker has and that differ; the master knows others, too."""
        changes = {name: options[name] for name in _NAMES if name in options and options[name] != getattr(self, name)}
        if changes:
            self.set(**changes)

    def set(self, **changes: Any) -> None:
        """Set options to values that the configuration allows.

        Raises AttributeError for an option that cannot change, and changes nothing then.
        """
        for name in changes:
            if name not in _NAMES:
                raise AttributeError(f"cannot set {name} while a worker runs")
        for name, value in changes.items():
            setattr(self, name, value)
        for tell in self._followers:
            tell(self, frozenset(changes))


def call_limit(options: LiveOptions) -> int:
    """Return ``max_requests`` with a jitter that is drawn; 0 for no limit."""
    if not options.max_requests:
        return 0
    return options.max_requests + random.randint(0, options.max_requests_jitter)


#: A follower; it gets all options, and the names of those that were set.
Tell = Callable[[LiveOptions, frozenset[str]], object]
_NAMES = [each.name for each in fields(LiveOptions) if each.init]
