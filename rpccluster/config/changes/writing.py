"""Finds the file into which new values belong, and makes its new content. Any process; it writes nothing.

`rpccluster.config.files.write_back` changes one value of a text, `rpccluster.system.replacing` replaces a file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from rpccluster.config.changes.changing import divided
from rpccluster.config.configuration import Configuration
from rpccluster.config.files.include import read_files
from rpccluster.config.files.ini import parse_ini
from rpccluster.config.files.reading import Reading
from rpccluster.config.files.write_back import with_value
from rpccluster.config.origin import BUILT_IN, COMMANDED, ENVIRONMENT, Fault, File, Origin, Setting
from rpccluster.config.sections import section_of
from rpccluster.config.values import shown
from rpccluster.errors import NotWritten

__all__ = ["Rewriting", "rewriting"]


class Rewriting(NamedTuple):
    """A change of a file: its content before and afterwards, and the places of the new values, by name."""

    path: str
    old: bytes
    new: bytes
    places: Mapping[str, Origin]


def rewriting(running: Configuration, changes: Mapping[str, str]) -> Rewriting:
    """Return the change that puts ``changes``, texts by the names of their options, into the file of ``running``.

    Raises `NotWritten`.
    """
    path = running.path
    if path is None:
        raise NotWritten("cannot write the values: the cluster has no configuration file")
    reading = read_files(path, running.sources.path or path)
    if reading.faults:
        raise NotWritten(str(reading.faults[0]))
    file = _file(reading, changes)
    try:
        with open(file.path, "rb") as opened:
            old = opened.read()
    except OSError as error:
        raise NotWritten(f"cannot read {file.shown}: {error.strerror}") from error
    new = old
    for name, text in changes.items():
        header, key = divided(name)
        _check_origin(running, header, key)
        _check_unchanged(running, old, file, header, key)
        new = with_value(new, file, header, key, text)
    return Rewriting(os.path.abspath(file.path), old, new, _places(new, file, changes))


def _file(reading: Reading, names: Mapping[str, str]) -> File:
    """Return the file that has the sections of ``names``; the first one for a section that is nowhere."""
    places = [reading.headers.get(divided(name)[0]) for name in names]
    files = {
        reading.files[place.file if place else 0].path: reading.files[place.file if place else 0] for place in places
    }
    if len(files) > 1:
        raise NotWritten(f"found values of {' and '.join(each.shown for each in files.values())}, expected one file's")
    (file,) = files.values()
    if file.path.endswith(".json"):
        raise NotWritten(f"found values of {file.shown}, expected an INI file's: no other is written")
    return file


def _check_origin(running: Configuration, header: str, key: str) -> None:
    """Refuse a value that a flag or the environment gives, since it would win over the file."""
    place = running.origin(key, header)
    if place.rank >= ENVIRONMENT.rank and place is not COMMANDED:
        raise NotWritten(str(Fault(place, key, "found a value that overrides the file, expected one of the file")))


def _check_unchanged(running: Configuration, data: bytes, file: File, header: str, key: str) -> None:
    """Refuse to overwrite a value that somebody has written since the file was read."""
    place = running.origin(key, header)
    found = next((each for each in _settings(data, file, header) if each.key == key), None)
    known = None if place is BUILT_IN else running.text(key, header)
    if place is COMMANDED or _read(found, running) == known:
        return
    told = f"found {shown(found.text) if found else 'nothing'}, expected {shown(known) if known else 'nothing'}"
    origin = found.origin if found else file.origin(1)
    raise NotWritten(str(Fault(origin, key, f"{told}: it has changed since it was read; reload first")))


def _read(found: Setting | None, running: Configuration) -> str | None:
    """Return what ``found`` means, written as values in force are; None if there is nothing."""
    section = section_of(found.section) if found else None
    if found is None or section is None:
        return None
    value_type = section.option(found.key).type
    try:
        return value_type.write(value_type.anchor(value_type.parse(found.text), running.sources.start_folder))
    except ValueError:
        return found.text


def _places(data: bytes, file: File, names: Mapping[str, str]) -> dict[str, Origin]:
    found = {}
    for name in names:
        header, key = divided(name)
        for each in _settings(data, file, header):
            if each.key == key:
                found[name] = each.origin
    return found


def _settings(data: bytes, file: File, header: str) -> list[Setting]:
    reading = parse_ini(data.decode("utf-8-sig"), file)
    return [each for each in reading.settings if each.section == header]
