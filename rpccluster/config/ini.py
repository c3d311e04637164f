"""Reads a configuration file: from bytes to settings, and to one fault for each mistake.

Owns the file's form: sections, keys, interpolation. The schema converts and checks the values. Any process.
"""

from __future__ import annotations

import os.path
import re
from collections.abc import Iterable, Iterator
from configparser import ConfigParser, InterpolationDepthError, InterpolationError, InterpolationMissingOptionError
from dataclasses import dataclass

from rpccluster.config.lines import Entry, Header, Item, Stray, scan
from rpccluster.config.origin import Fault, Origin, Setting, file_origin
from rpccluster.config.sections.cluster import OPTIONS
from rpccluster.config.values import shown

__all__ = ["CLUSTER", "SHARED", "Reading", "parse_ini", "read_ini"]

CLUSTER = "cluster"
SHARED = "DEFAULT"

_HERE = "here"
_LARGEST_FILE = 1 << 20
_REFERENCE = re.compile(r"%\(([^)]+)\)s")


@dataclass(frozen=True)
class Reading:
    """The content of a file. A later setting of a key overrides an earlier one.

    ``section`` is the place where ``[cluster]`` begins; None without that section.
    """

    settings: tuple[Setting, ...] = ()
    faults: tuple[Fault, ...] = ()
    section: Origin | None = None


def read_ini(path: str, shown_path: str) -> Reading:
    """Read the file at ``path``; faults call it ``shown_path``. Reports faults, never raises them."""
    try:
        with open(path, "rb") as file:
            data = file.read(_LARGEST_FILE + 1)
        if len(data) > _LARGEST_FILE:
            return _unreadable(shown_path, 1, f"found more than {_LARGEST_FILE} bytes, expected a configuration file")
        text = data.decode("utf-8-sig")
    except OSError as error:
        return _unreadable(shown_path, 1, f"cannot read the file: {error.strerror}")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        return _unreadable(shown_path, line, f"found the byte 0x{error.object[error.start]:02x}, expected UTF-8 text")
    return parse_ini(text, os.path.dirname(os.path.abspath(path)), shown_path)


def _unreadable(path: str, line: int, problem: str) -> Reading:
    return Reading(faults=(Fault(file_origin(path, line), "config", problem),))


def parse_ini(text: str, here: str, path: str) -> Reading:
    """Return the settings and faults of ``text``, from the file ``path`` in the folder ``here``."""
    items = scan(text)
    entries = [each for each in items if isinstance(each, Entry) and each.section in (SHARED, CLUSTER)]
    entries.sort(key=lambda entry: entry.section == CLUSTER)  # [cluster] overrides [DEFAULT]
    interpolation = _Interpolation(entries, here)
    faults = [Fault(file_origin(path, line), key, problem) for line, key, problem in _misplaced(items)]
    settings = []
    for entry in entries:
        origin = file_origin(path, entry.line)
        try:
            if entry.key in OPTIONS:
                settings.append(Setting(entry.key, interpolation.value(entry), origin))
            else:
                interpolation.check_name(entry)
        except ValueError as error:
            faults.append(Fault(origin, entry.key, str(error)))
    sections = [file_origin(path, each.line) for each in items if isinstance(each, Header) and each.name == CLUSTER]
    return Reading(tuple(settings), tuple(faults), sections[0] if sections else None)


class _Interpolation:
    """Replaces ``%(name)s`` within one file. Its methods raise `ValueError` with ``found …, expected …``."""

    def __init__(self, entries: list[Entry], here: str) -> None:
        self._names = {entry.key: entry.text for entry in entries}
        self._names[_HERE] = here.replace("%", "%%")
        self._used = {name.lower() for entry in entries for name in _references(entry.text)}
        self._parser = ConfigParser()
        self._parser.add_section(CLUSTER)

    def value(self, entry: Entry) -> str:
        """Return the text of ``entry`` with every name replaced."""
        try:
            return self._parser.get(CLUSTER, entry.key, vars={**self._names, entry.key: entry.text})
        except InterpolationMissingOptionError as error:
            hint = _near(error.reference, self._names)
            raise ValueError(f"found %({error.reference})s, expected a name of [DEFAULT] or here{hint}") from None
        except InterpolationDepthError:
            raise ValueError(f"found {shown(entry.text)}, which leads to itself, expected a value") from None
        except InterpolationError:
            raise ValueError(f"found {shown(entry.text)}, expected %(name)s, or %% for a percent sign") from None

    def check_name(self, entry: Entry) -> None:
        """Refuse a key that is neither an option nor a value that others refer to."""
        if entry.key == _HERE:
            raise ValueError("found a value, expected none: it is always the file's folder")
        if entry.section == CLUSTER:
            raise ValueError(f"found an unknown key, expected an option{_near(entry.key, OPTIONS)}")
        if entry.key not in self._used:
            hint = _near(entry.key, [*OPTIONS, *self._used])
            raise ValueError(
                f"found a name that nothing uses, expected an option, or a name that some value refers to{hint}"
            )


def _references(text: str) -> list[str]:
    return _REFERENCE.findall(text.replace("%%", ""))


def _near(name: str, names: Iterable[str]) -> str:
    from difflib import get_close_matches  # only a faulty file needs it

    return "".join(f"; did you mean {name}?" for name in get_close_matches(name, list(names), 1))


def _misplaced(items: list[Item]) -> Iterator[tuple[int, str, str]]:
    """Yield line, key and problem of each item that stands in the wrong place."""
    first: dict[tuple[str | None, ...], int] = {}
    for item in items:
        key, identity = _identity(item)
        if isinstance(item, Stray):
            yield item.line, key, f"found {shown(item.text)}, expected KEY = VALUE or [{CLUSTER}]"
        elif isinstance(item, Header) and item.name not in (CLUSTER, SHARED):
            yield item.line, key, f"found an unknown section, expected [{CLUSTER}] or [{SHARED}]"
        elif isinstance(item, Entry) and item.section is None:
            yield item.line, key, f"found it before any section, expected it under [{CLUSTER}]"
        elif first.setdefault(identity, item.line) != item.line:
            yield item.line, key, f"found it again, expected it once: it stands in line {first[identity]}"
    if (CLUSTER,) not in first:
        yield 1, f"[{CLUSTER}]", "found no such section, expected one"


def _identity(item: Item) -> tuple[str, tuple[str | None, ...]]:
    """Return the name of ``item`` in a fault, and the identity that must not occur twice in a file."""
    if isinstance(item, Header):
        return f"[{item.name}]", (item.name,)
    if isinstance(item, Entry):
        return item.key, (item.section, item.key)
    return item.text.split()[0], (item.text,)
