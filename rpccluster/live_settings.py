"""The service's settings: how it declares them, and the mapping in which it reads them. Any process; imports nothing.

A *version* is a number and all values at once. Only `rpccluster.child` and above put one in force.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Callable, NamedTuple

__all__ = ["HOOKS", "NO_SETTINGS", "Given", "LiveSettings", "Setting", "Version", "settings"]

#: The names of a service's attributes that concern its settings; callers cannot call them.
HOOKS = frozenset({"settings", "settings_check", "settings_changed"})

_PLAIN = (bool, int, float, str, list)


class Setting:
    """Declares one setting: its kind, its default and what it is for.

    ``kind`` is bool, int, float, str, list (of str, separated by commas in the file), or a function that makes a value
    of a text and raises ValueError for one that it does not take. Raises TypeError for a default of another kind.
    """

    __slots__ = ("default", "doc", "kind")

    def __init__(self, kind: Callable[[str], Any], default: Any, doc: str = "") -> None:
        if not callable(kind):
            raise TypeError(f"found {kind!r}, expected bool, int, float, str, list or a function of a text")
        if kind is float and type(default) is int:
            default = float(default)
        if kind in _PLAIN and type(default) is not kind:
            raise TypeError(f"found the default {default!r}, expected one of type {kind.__name__}")
        self.kind = kind
        self.default = default
        self.doc = doc

    def __repr__(self) -> str:
        return f"Setting({getattr(self.kind, '__name__', self.kind)}, {self.default!r}, {self.doc!r})"


class Given(NamedTuple):
    """A version as the configuration gives it: the texts of the values, and the places where they stand, by key."""

    number: int
    texts: Mapping[str, str]
    places: Mapping[str, str]


NO_SETTINGS = Given(0, {}, {})


class Version(NamedTuple):
    """A version in its service's kinds of values. ``values`` cannot be changed."""

    number: int
    values: Mapping[str, Any]


class LiveSettings(Mapping[str, Any]):
    """The values in force, by their keys; read-only. ``version`` is their number, 0 outside of a cluster.

    A call of a worker sees the version with which it began until its end, in its own greenlet and in those that it
    spawns. Other code sees the newest.
    """

    __slots__ = ("_calls", "_newest", "_of_call", "_values")

    def __init__(self) -> None:
        self.put_in_force(Version(0, MappingProxyType({})))
        self._calls: Mapping[int, Any] = {}  # those that see an older version
        self._of_call: Callable[[], Version | None] = lambda: None

    def put_in_force(self, version: Version) -> None:
        """Make ``version`` the newest."""
        self._newest = version
        self._values = version.values  # found sooner

    def keep_for_calls(self, calls: Mapping[int, Any], of_call: Callable[[], Version | None]) -> None:
        """Ask ``of_call`` for the version of the present call as long as there are ``calls`` that see an older one."""
        self._calls, self._of_call = calls, of_call

    @property
    def newest(self) -> Version:
        """The version that a call sees which begins now."""
        return self._newest

    def _seen(self) -> Version:
        return (self._of_call() or self._newest) if self._calls else self._newest

    @property
    def version(self) -> int:
        """The number of the version."""
        return self._seen().number

    def __getitem__(self, key: str) -> Any:
        if self._calls:
            return self._seen().values[key]
        return self._values[key]

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of ``key``, or ``default`` if there is none."""
        return self._seen().values.get(key, default)

    def __contains__(self, key: object) -> bool:
        return key in self._seen().values

    def __iter__(self) -> Iterator[str]:
        return iter(self._seen().values)

    def __len__(self) -> int:
        return len(self._seen().values)

    def __repr__(self) -> str:
        version = self._seen()
        return f"<settings, version {version.number}: {dict(version.values)!r}>"


#: The settings of this process.
settings = LiveSettings()
