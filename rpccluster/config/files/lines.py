"""Splits an INI text into headers and entries, each with its line number. Pure; any process.

It reads what configparser reads, but keeps line numbers and does not stop at the first fault. `ini` beside it
interprets the entries.
"""

from __future__ import annotations

import io
import re
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Union

__all__ = ["Entry", "Header", "Item", "Stray", "plain_key", "scan"]

_HEADER = re.compile(r"\[([^]]+)\]")
_ENTRY = re.compile(r"([^=:]+?)\s*[=:]\s*(.*)")
_ONLY_EQUALS = re.compile(r"([^=]+?)\s*=\s*(.*)")


@dataclass(frozen=True)
class Header:
    """A section header ``[name]``."""

    line: int
    name: str


@dataclass(frozen=True)
class Entry:
    """``key = text`` with its continuation lines; ``section`` is None before the first header."""

    line: int
    section: str | None
    key: str
    text: str
    last_line: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Stray:
    """A line that is neither a header nor an entry."""

    line: int
    text: str


Item = Union[Header, Entry, Stray]


def scan(text: str, cased: Collection[str] = (), only_equals: Collection[str] = ()) -> list[Item]:
    """Return the items of ``text`` in order. A line indented deeper than the entry before it continues that entry.

    Keys are written in lower case, but for those of the sections ``cased``. In the sections ``only_equals`` a colon
    divides nothing.
    """
    items: list[Item] = []
    section, margin = None, 0
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):
        content = line.strip()
        if not content or content[0] in "#;":
            continue
        depth = len(line) - len(line.lstrip())
        last = items[-1] if items else None
        if isinstance(last, Entry) and depth > margin:
            items[-1] = replace(last, text=f"{last.text}\n{content}", last_line=number)
            continue
        margin = depth
        form = _ONLY_EQUALS if section in only_equals else _ENTRY
        items.append(_item(number, content, section, section in cased, form))
        if isinstance(items[-1], Header):
            section = items[-1].name
    return items


def plain_key(key: str) -> str:
    """Write ``key`` in lower case, but for what stands behind a dot: ``Env.PATH`` is ``env.PATH``."""
    name, dot, own = key.partition(".")
    return name.lower() + dot + own


def _item(number: int, content: str, section: str | None, is_cased: bool, form: re.Pattern[str]) -> Item:
    if header := _HEADER.fullmatch(content):
        return Header(number, header[1])
    if entry := form.fullmatch(content):
        return Entry(number, section, entry[1] if is_cased else plain_key(entry[1]), entry[2], number)
    return Stray(number, content)
