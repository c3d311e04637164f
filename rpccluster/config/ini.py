"""Reads a configuration file: from bytes to settings, and to one fault for each mistake.

Owns the file's form: sections, keys, interpolation. The schema converts and checks the values. Any process.
"""

from __future__ import annotations

import os.path
import re
from collections.abc import Iterable, Iterator, Mapping
from configparser import ConfigParser, InterpolationDepthError, InterpolationError, InterpolationMissingOptionError
from dataclasses import dataclass, field

from rpccluster.config.lines import Entry, Header, Item, Stray, plain_key, scan
from rpccluster.config.origin import Fault, Origin, Setting, file_origin
from rpccluster.config.sections import SECTIONS, section_of
from rpccluster.config.sections.cluster import CLUSTER
from rpccluster.config.values import shown

__all__ = ["SHARED", "Reading", "parse_ini", "read_ini"]

SHARED = "DEFAULT"

_HERE = "here"
_LARGEST_FILE = 1 << 20
_REFERENCE = re.compile(r"%\(([^)]+)\)s")


@dataclass(frozen=True)
class Reading:
    """The content of a file. A later setting of a key overrides an earlier one of the same section.

    ``headers`` are the places where its sections begin, ``[DEFAULT]`` and unknown ones left out.
    """

    settings: tuple[Setting, ...] = ()
    faults: tuple[Fault, ...] = ()
    headers: Mapping[str, Origin] = field(default_factory=dict)


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
    headers: dict[str, Origin] = {}
    for item in items:
        if isinstance(item, Header) and section_of(item.name):
            headers.setdefault(item.name, file_origin(path, item.line))
    entries = [
        each for each in items if isinstance(each, Entry) and (each.section == SHARED or section_of(each.section))
    ]
    entries.sort(key=lambda entry: entry.section != SHARED)  # a section overrides [DEFAULT]
    interpolation = _Interpolation(entries, here)
    faults = [Fault(file_origin(path, line), key, problem) for line, key, problem in _misplaced(items)]
    settings: list[Setting] = []
    for entry in entries:
        origin = file_origin(path, entry.line)
        try:
            takers = list(_takers(entry, headers or {CLUSTER.name: origin}))
            settings += [Setting(header, entry.key, interpolation.value(entry, header), origin) for header in takers]
            if not takers:
                interpolation.check_name(entry)
        except ValueError as error:
            faults.append(Fault(origin, entry.key, str(error), entry.section))
    return Reading(tuple(settings), tuple(faults), headers)


def _takers(entry: Entry, headers: Iterable[str]) -> Iterator[str]:
    """Yield the headers of the sections that have ``entry`` as an option: its own, or all for one of [DEFAULT]."""
    for header in headers if entry.section == SHARED else (entry.section,):
        section = section_of(header)
        if header and section and section.knows(entry.key):
            yield header


class _Interpolation:
    """Replaces ``%(name)s`` within one file. Its methods raise `ValueError` with ``found …, expected …``."""

    def __init__(self, entries: list[Entry], here: str) -> None:
        self._entries = entries
        self._here = here.replace("%", "%%")
        self._used = {plain_key(name) for entry in entries for name in _references(entry.text)}
        self._parser = ConfigParser()
        self._parser.optionxform = plain_key  # type: ignore[method-assign, assignment]
        self._parser.add_section(CLUSTER.name)  # the names of each section are handed to it

    def value(self, entry: Entry, header: str) -> str:
        """Return the text of ``entry`` with every name replaced, as it is known in the section of ``header``."""
        names = {each.key: each.text for each in self._entries if each.section in (SHARED, header)}
        names.update({_HERE: self._here, entry.key: entry.text})
        try:
            return self._parser.get(CLUSTER.name, entry.key, vars=names)
        except InterpolationMissingOptionError as error:
            hint = _near(error.reference, names)
            raise ValueError(f"found %({error.reference})s, expected a name of [DEFAULT] or here{hint}") from None
        except InterpolationDepthError:
            raise ValueError(f"found {shown(entry.text)}, which leads to itself, expected a value") from None
        except InterpolationError:
            raise ValueError(f"found {shown(entry.text)}, expected %(name)s, or %% for a percent sign") from None

    def check_name(self, entry: Entry) -> None:
        """Refuse a key that is neither an option nor a value that others refer to."""
        if entry.key == _HERE:
            raise ValueError("found a value, expected none: it is always the file's folder")
        section = section_of(entry.section)
        if section is not None:
            raise ValueError(f"found an unknown key, expected an option{_near(entry.key, section.options)}")
        if entry.key not in self._used:
            keys = [key for each in SECTIONS.values() for key in each.options]
            hint = _near(entry.key, [*keys, *self._used])
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
            yield item.line, key, f"found {shown(item.text)}, expected KEY = VALUE or [{CLUSTER.name}]"
        elif isinstance(item, Header) and item.name != SHARED and section_of(item.name) is None:
            known = ", ".join(section.header for section in SECTIONS.values())
            yield item.line, key, f"found an unknown section, expected {known} or [{SHARED}]"
        elif isinstance(item, Entry) and item.section is None:
            yield item.line, key, f"found it before any section, expected it under [{CLUSTER.name}]"
        elif first.setdefault(identity, item.line) != item.line:
            yield item.line, key, f"found it again, expected it once: it stands in line {first[identity]}"
    if (CLUSTER.name,) not in first:
        yield 1, f"[{CLUSTER.name}]", "found no such section, expected one"


def _identity(item: Item) -> tuple[str, tuple[str | None, ...]]:
    """Return the name of ``item`` in a fault, and the identity that must not occur twice in a file."""
    if isinstance(item, Header):
        return f"[{item.name}]", (item.name,)
    if isinstance(item, Entry):
        return item.key, (item.section, item.key)
    return item.text.split()[0], (item.text,)
