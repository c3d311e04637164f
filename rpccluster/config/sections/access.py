"""The section ``[access]``: for each identity the methods that it may call, and how often. Any process.

Each key is an identity. Where the section stands, what no rule allows is refused; the workers apply the rules
(`rpccluster.worker.service.access`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from rpccluster.config.access import Rule, is_identity, rules_of, text_of, texts_of
from rpccluster.config.checks import Complaint, Machine
from rpccluster.config.sections.option import Effect, Option, Section
from rpccluster.config.values import ValueType

__all__ = ["ACCESS", "AccessOptions", "access_text"]

MOST_RATES = 64  # each has cells in shared memory

_RULES = ValueType("rules separated by commas, each call PATTERN or call PATTERN RATE/s", rules_of, text_of)
_ANY_IDENTITY = Option(_RULES, (), "what this identity may call", Effect.NOW)


@dataclass(frozen=True)
class AccessOptions:
    """The rules by identity. ``is_present`` is false where the section does not stand."""

    rules: Mapping[str, tuple[Rule, ...]] = field(default_factory=lambda: MappingProxyType({}))
    is_present: bool = False


class _Access(Section):
    """A section whose keys are identities."""

    def knows(self, key: str) -> bool:
        return True

    def option(self, key: str) -> Option:
        return _ANY_IDENTITY

    def names(self, like: str) -> list[str]:
        return []

    def keys(self, values: Any) -> Iterator[str]:
        yield from values.rules

    def value(self, values: Any, key: str) -> Any:
        return values.rules.get(key, ())

    def make(self, given: Mapping[str, Any], fields: Mapping[str, Any]) -> AccessOptions:
        return AccessOptions(MappingProxyType(dict(given)), True)


def _complaints(options: AccessOptions, machine: Machine, config_path: str | None) -> list[Complaint]:
    """Return the faults of the rules."""
    found = [
        Complaint((key,), f"found the identity {key!r}, expected key:NAME, uid:N, cert:NAME or *")
        for key in options.rules
        if not is_identity(key)
    ]
    rated = [key for key, rules in options.rules.items() for rule in rules if rule.rate is not None]
    if len(rated) > MOST_RATES:
        found.append(Complaint((rated[MOST_RATES],), f"found {len(rated)} rates, expected at most {MOST_RATES}"))
    return found


def access_text(options: AccessOptions | None) -> str:
    """Return all rules as the master tells them; empty without the section."""
    return texts_of(options.rules) if options is not None and options.is_present else ""


ACCESS = _Access("access", AccessOptions, _complaints, is_open=True)
