"""Makes values of the texts in ``[settings]``, by what a service declares. Pure; any process.

Without a declaration each value is its text. With one, a key that it lacks is a fault, and a key that the configuration
lacks has its default.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from rpccluster.config.origin import nearest
from rpccluster.config.values import BOOLEAN, items, shown
from rpccluster.errors import SettingsRefused
from rpccluster.failure import error_text
from rpccluster.live_settings import Given, Setting, Version

__all__ = ["converted", "declaration_of", "with_places"]

_MOST_NAMED = 3  # of the keys in one message

_WORDS = {bool: BOOLEAN.expected, int: "a whole number", float: "a number"}


def declaration_of(found: object) -> Mapping[str, Setting] | None:
    """Return what ``found``, a service's class, an object or a module, declares as ``settings``; None if nothing.

    Raises `SettingsRefused` for a mapping of which some values are a `Setting`, and others are not.
    """
    declared = getattr(found, "settings", None)
    if not isinstance(declared, dict) or not any(isinstance(each, Setting) for each in declared.values()):
        return None
    for key, setting in declared.items():
        if not isinstance(key, str) or not isinstance(setting, Setting):
            raise SettingsRefused(f"settings[{key!r}] is {setting!r}, expected an rpccluster.Setting")
    return declared


def converted(given: Given, declared: Mapping[str, Setting] | None) -> Version:
    """Return the values of ``given``. Raises `SettingsRefused` with a line for each fault."""
    if declared is None:
        return Version(given.number, MappingProxyType(dict(given.texts)))
    values = {key: list(each.default) if each.kind is list else each.default for key, each in declared.items()}
    faults = [f"{_place(given, key)}{key}: {problem}" for key, problem in _convert(given, declared, values)]
    if faults:
        raise SettingsRefused("\n".join(faults))
    return Version(given.number, MappingProxyType(values))


def _convert(given: Given, declared: Mapping[str, Setting], values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Put each value into ``values``. Yields the key of each fault, and the problem."""
    for key, text in given.texts.items():
        if key not in declared:
            yield key, f"found an unknown setting, expected one that the service declares{nearest(key, declared)}"
            continue
        try:
            values[key] = _value(declared[key], text)
        except Exception as error:  # a function of the service's own may raise anything
            yield key, _problem(declared[key], text, error)


def _value(setting: Setting, text: str) -> Any:
    if setting.kind is bool:
        return BOOLEAN.parse(text)
    if setting.kind is list:
        return list(items(text))
    return setting.kind(text)


def _problem(setting: Setting, text: str, error: Exception) -> str:
    if setting.kind in _WORDS:
        return f"found {shown(text)}, expected {_WORDS[setting.kind]}"
    return f"found {shown(text)}, which the service refuses: {error_text(error)}"


def _place(given: Given, key: str) -> str:
    return f"{given.places[key]}: " if key in given.places else ""


def with_places(keys: Iterable[str], places: Mapping[str, str]) -> str:
    """Name ``keys``, each with its place, for a message; of many, the first few."""
    named = [f"{key} ({places[key]})" if key in places else key for key in sorted(keys)]
    more = len(named) - _MOST_NAMED
    return ", ".join(named[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
