"""The limits and timeouts of a worker as they are now: set here, while it runs. Runs in the worker; data.

Whoever looks at an option now and then reads it here each time. Whoever would look at it with every call, or has made
something of it, keeps its own, and follows: it is told after each change. A change holds for connections that exist
and for calls that begin afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Callable

__all__ = ["LiveOptions"]


@dataclass
class LiveOptions:
    """Some options of a worker, by the names that the configuration has for them."""

    call_timeout: float
    max_greenlets: int
    max_pending_calls: int
    max_message_size: int
    max_depth: int
    idle_timeout: float
    message_timeout: float
    write_timeout: float
    worker_connections: int
    log_level: str
    access_log: str
    _followers: list[Tell] = field(default_factory=list, init=False, repr=False)

    @classmethod
    def of(cls, options: Any) -> LiveOptions:
        """Take them from the ``options`` that the worker was born with."""
        return cls(**{name: getattr(options, name) for name in _NAMES})

    def follow(self, tell: Tell) -> None:
        """Call ``tell`` after each change."""
        self._followers.append(tell)

    def set(self, **changes: Any) -> None:
        """Change some of them to values that the configuration allows. Raises AttributeError for a name unknown here,
        and changes nothing then."""
        for name in changes:
            if name not in _NAMES:
                raise AttributeError(f"cannot set {name} while a worker runs")
        for name, value in changes.items():
            setattr(self, name, value)
        for tell in self._followers:
            tell(self, frozenset(changes))


#: Is called with all options, and the names of those that were set.
Tell = Callable[[LiveOptions, frozenset[str]], object]
_NAMES = [each.name for each in fields(LiveOptions) if each.init]
