"""The actions of the page: what each takes, and what the master is asked for it. Pure; runs in the page's process."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["ACTIONS", "PREFIX", "Misread", "question"]

PREFIX = "/actions/"


class Misread(ValueError):
    """The body of a request is not what its action takes; the text says what was found and expected."""


def _reload(body: Mapping[str, Any]) -> list[Any]:
    _only(body, "all")
    is_all = body.get("all", False)
    if not isinstance(is_all, bool):
        raise Misread("found no boolean as all, expected true or false")
    return [{"all": is_all}]


def _scale(body: Mapping[str, Any]) -> list[Any]:
    _only(body, "group", "processes")
    number = body.get("processes")
    if isinstance(number, bool) or not isinstance(number, (int, str)):
        raise Misread("found no number as processes, expected N, or +N or -N as a string")
    return [_text(body, "group"), number]


def _plugin(body: Mapping[str, Any]) -> list[Any]:
    _only(body, "name")
    return [_text(body, "name")]


#: What makes the params of a method of the master, by the action's name, which is the method's.
ACTIONS: Mapping[str, Callable[[Mapping[str, Any]], list[Any]]] = {
    "reload": _reload,
    "scale": _scale,
    "plugin.start": _plugin,
    "plugin.stop": _plugin,
    "plugin.restart": _plugin,
}


def question(name: str, body: bytes) -> tuple[str, list[Any]]:
    """Return the method and params for an action. Raises `Misread`."""
    try:
        read = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        raise Misread("found no JSON, expected an object") from None
    if not isinstance(read, dict):
        raise Misread("found JSON that is no object, expected one")
    return name, ACTIONS[name](read)


def _only(body: Mapping[str, Any], *keys: str) -> None:
    unknown = sorted(set(body) - set(keys))
    if unknown:
        raise Misread(f"found the key {unknown[0][:100]!r}, expected {' and '.join(keys)}")


def _text(body: Mapping[str, Any], key: str) -> str:
    value = body.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= 200:
        raise Misread(f"found no name as {key}, expected one")
    return value
