"""The rules of ``[access]``: who may call what, and how often. Pure; the configuration and the workers read them.

A rule is ``call PATTERN`` or ``call PATTERN RATE/s``. Owns their form in the file, and the form in which the master
tells all of them to the workers.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["EVERYBODY", "Rule", "Rules", "is_identity", "rules_of", "text_of", "texts_of"]

EVERYBODY = "*"

_IDENTITY = re.compile(r"key:\S+|uid:[0-9]{1,10}|cert:.+|\*", re.DOTALL)
_RULE = re.compile(r"call\s+(?P<pattern>[^\s,]+)(?:\s+(?P<rate>[0-9]+(?:\.[0-9]+)?)/s)?")


class Rule(NamedTuple):
    """Allows methods whose names match ``pattern``: at most ``rate`` calls a second of them, None for any number."""

    pattern: str
    rate: float | None = None

    def __str__(self) -> str:
        return f"call {self.pattern}" + ("" if self.rate is None else f" {self.rate:g}/s")

    def allows(self, method: str) -> bool:
        """Return whether ``method`` is one of its."""
        return fnmatch.fnmatchcase(method, self.pattern)


#: Rules by the identity that they are for.
Rules = Mapping[str, "tuple[Rule, ...]"]


def is_identity(text: str) -> bool:
    """Return whether ``text`` has the form of an identity."""
    return _IDENTITY.fullmatch(text) is not None


def rules_of(text: str) -> tuple[Rule, ...]:
    """Read the rules of one identity. Raises ValueError."""
    rules = []
    for item in (item.strip() for item in text.split(",")):
        match = _RULE.fullmatch(item)
        rate = float(match["rate"]) if match and match["rate"] else None
        if match is None or rate == 0:
            raise ValueError(item)
        rules.append(Rule(match["pattern"], rate))
    return tuple(rules)


def text_of(rules: tuple[Rule, ...]) -> str:
    """Write the rules of one identity."""
    return ", ".join(map(str, rules))


def texts_of(rules: Rules) -> str:
    """Write all rules, as processes tell them each other; `json.loads` reads them."""
    return json.dumps({identity: text_of(own) for identity, own in rules.items()})
