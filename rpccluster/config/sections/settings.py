"""The section ``[settings]``: the service's own values, under any keys. Any process.

It knows no kind of value: a service may declare its settings, and `rpccluster.config.declared` converts them then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from rpccluster.config.process_values import TEXT
from rpccluster.config.sections.option import Effect, Option, Section

__all__ = ["SETTINGS", "ServiceSettings"]

_ANY_KEY = Option(TEXT, "", "a value of the service's own", Effect.NOW)


@dataclass(frozen=True)
class ServiceSettings:
    """The texts of the service's settings, by their keys."""

    texts: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


class _AnyKey(Section):
    """A section that has whatever keys stand in it."""

    def knows(self, key: str) -> bool:
        return True

    def option(self, key: str) -> Option:
        return _ANY_KEY

    def names(self, like: str) -> list[str]:
        return []

    def keys(self, values: Any) -> Iterator[str]:
        yield from values.texts

    def value(self, values: Any, key: str) -> Any:
        return values.texts[key]

    def make(self, given: Mapping[str, Any], fields: Mapping[str, Any]) -> ServiceSettings:
        return ServiceSettings(MappingProxyType(dict(given)))


SETTINGS = _AnyKey("settings", ServiceSettings, is_open=True)
