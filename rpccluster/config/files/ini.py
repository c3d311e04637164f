"""Reads a configuration file of INI form: settings, and one fault for each mistake.

Owns that form: sections, keys, interpolation, all within one file. Any process.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from configparser import ConfigParser, InterpolationDepthError, InterpolationError, InterpolationMissingOptionError

from rpccluster.config.files.lines import Entry, Header, Item, Stray, plain_key, scan
from rpccluster.config.files.reading import Reading, read_text
from rpccluster.config.origin import Fault, File, Origin, Setting, nearest
from rpccluster.config.sections import CASED, ONLY_EQUALS, SECTIONS, SHARED, header_problem, section_of
from rpccluster.config.sections.cluster import CLUSTER
from rpccluster.config.values import shown

__all__ = ["parse_ini", "read_ini", "scan_ini"]

_HERE = "here"
_REFERENCE = re.compile(r"%\(([^)]+)\)s")


def read_ini(file: File) -> Reading:
    """Read ``file``. Reports faults, never raises them."""
    text = read_text(file)
    return Reading(faults=(text,)) if isinstance(text, Fault) else parse_ini(text, file)


def scan_ini(text: str) -> list[Item]:
    """Return the headers and entries of ``text``; the sections say whose keys keep their case."""
    return scan(text, CASED, ONLY_EQUALS)


def parse_ini(text: str, file: File) -> Reading:
    """Return the settings and faults of ``text``, the content of ``file``."""
    items = scan_ini(text)
    headers: dict[str, Origin] = {}
    for item in items:
        if isinstance(item, Header) and section_of(item.name):
            headers.setdefault(item.name, file.origin(item.line))
    entries = [
        each for each in items if isinstance(each, Entry) and (each.section == SHARED or section_of(each.section))
    ]
    entries.sort(key=lambda entry: entry.section != SHARED)  # a section overrides [DEFAULT]
    interpolation = _Interpolation(entries, file.folder)
    shared_by = headers or ({CLUSTER.name} if file.is_first else ())
    faults = [Fault(file.origin(line), key, problem) for line, key, problem in _misplaced(items, file)]
    settings: list[Setting] = []
    for entry in entries:
        origin, is_shared = file.origin(entry.line), entry.section == SHARED
        try:
            takers = list(_takers(entry, shared_by))
            for header in takers:
                text = interpolation.value(entry, header)
                settings.append(Setting(header, entry.key, text, origin, is_shared))
            if not takers:
                interpolation.check_name(entry)
        except ValueError as error:
            faults.append(Fault(origin, entry.key, str(error), entry.section))
    return Reading(tuple(settings), tuple(faults), headers)


def _takers(entry: Entry, headers: Iterable[str]) -> Iterator[str]:
    """Yield the headers of the sections that have ``entry`` as an option: its own, or all for one of [DEFAULT]."""
    for header in headers if entry.section == SHARED else (entry.section,):
        section = section_of(header)
        if header and section and section.knows(entry.key) and not (section.is_open and entry.section == SHARED):
            yield header


class _Interpolation:
    """Replaces ``%(name)s`` within one file. Its methods raise `ValueError` with ``found …, expected …``."""

    def __init__(self, entries: list[Entry], here: str) -> None:
        self._entries = entries
        self._here = here.replace("%", "%%")
        self._known: dict[str, dict[str, str]] = {}  # the names that each section knows
        self._used = {plain_key(name) for entry in entries for name in _references(entry.text)}
        self._parser = ConfigParser()
        self._parser.add_section(CLUSTER.name)  # the names of each section are handed to it

    def value(self, entry: Entry, header: str) -> str:
        """Return the text of ``entry`` with every name replaced, as it is known in the section of ``header``."""
        if header not in self._known:
            self._known[header] = {each.key: each.text for each in self._entries if each.section in (SHARED, header)}
        names = {**self._known[header], _HERE: self._here, entry.key: entry.text}

        def known(name: str) -> str:  # one that keeps its case as it is written, every other one in any case
            return name if name in names else plain_key(name)

        self._parser.optionxform = known  # type: ignore[method-assign, assignment]
        try:
            return self._parser.get(CLUSTER.name, entry.key, vars=names)
        except InterpolationMissingOptionError as error:
            hint = nearest(error.reference, names)
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
            raise ValueError(f"found an unknown key, expected an option{nearest(entry.key, section.names(entry.key))}")
        if entry.key not in self._used:
            keys = [key for each in SECTIONS.values() for key in each.options]
            hint = nearest(entry.key, {*keys, *self._used} - {entry.key})
            raise ValueError(
                f"found a name that nothing uses, expected an option, or a name that some value refers to{hint}"
            )


def _references(text: str) -> list[str]:
    return _REFERENCE.findall(text.replace("%%", ""))


def _misplaced(items: list[Item], file: File) -> Iterator[tuple[int, str, str]]:
    """Yield line, key and problem of each item that stands in the wrong place."""
    first: dict[tuple[str | None, ...], int] = {}
    for item in items:
        key, identity = _identity(item)
        if isinstance(item, Stray):
            yield item.line, key, f"found {shown(item.text)}, expected KEY = VALUE or [{CLUSTER.name}]"
        elif isinstance(item, Header) and item.name != SHARED and (problem := header_problem(item.name)):
            yield item.line, key, problem
        elif isinstance(item, Entry) and item.section is None:
            yield item.line, key, f"found it before any section, expected it under [{CLUSTER.name}]"
        elif first.setdefault(identity, item.line) != item.line:
            yield item.line, key, f"found it again, expected it once: it stands in line {first[identity]}"
    if file.is_first and (CLUSTER.name,) not in first:
        yield 1, f"[{CLUSTER.name}]", "found no such section, expected one"


def _identity(item: Item) -> tuple[str, tuple[str | None, ...]]:
    """Return the name of ``item`` in a fault, and the identity that must not occur twice in a file."""
    if isinstance(item, Header):
        return f"[{item.name}]", (item.name,)
    if isinstance(item, Entry):
        return item.key, (item.section, item.key)
    return item.text.split()[0], (item.text,)
