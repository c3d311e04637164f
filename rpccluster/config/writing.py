"""Finds the file into which new settings belong, and makes its new content. Any process; it writes nothing.

`rpccluster.config.files.write_back` changes one value of a text, `rpccluster.system.replacing` replaces a file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from rpccluster.config.configuration import Configuration
from rpccluster.config.files.include import read_files
from rpccluster.config.files.ini import parse_ini
from rpccluster.config.files.write_back import with_value
from rpccluster.config.origin import COMMANDED, Fault, File, Origin, Setting
from rpccluster.config.sections.settings import SETTINGS
from rpccluster.config.values import shown
from rpccluster.errors import NotWritten

__all__ = ["Rewriting", "rewriting"]


class Rewriting(NamedTuple):
    """A change of a file: its content before and afterwards, and the places of the new values, by key."""

    path: str
    old: bytes
    new: bytes
    places: Mapping[str, Origin]


def rewriting(running: Configuration, changes: Mapping[str, str]) -> Rewriting:
    """Return the change that puts ``changes``, texts by keys of ``[settings]``, into the file of ``running``.

    Raises `NotWritten`.
    """
    path = running.path
    if path is None:
        raise NotWritten("cannot write settings: the cluster has no configuration file")
    reading = read_files(path, running.sources.path or path)
    if reading.faults:
        raise NotWritten(str(reading.faults[0]))
    place = reading.headers.get(SETTINGS.name)
    file = reading.files[place.file if place else 0]
    try:
        with open(file.path, "rb") as opened:
            old = opened.read()
    except OSError as error:
        raise NotWritten(f"cannot read {file.shown}: {error.strerror}") from error
    new = old
    for key, text in changes.items():
        _check_unchanged(running, old, file, key)
        new = with_value(new, file, SETTINGS.name, key, text)
    return Rewriting(os.path.abspath(file.path), old, new, _values(new, file, changes))


def _check_unchanged(running: Configuration, data: bytes, file: File, key: str) -> None:
    """Refuse to overwrite a value that somebody has written since the file was read."""
    place = running.origin(key, SETTINGS.name)
    known = running.sections()[SETTINGS.name].texts.get(key)
    found = next((each for each in _settings(data, file) if each.key == key), None)
    if place is COMMANDED or (found.text.strip() if found else None) == known:
        return
    told = f"found {shown(found.text) if found else 'nothing'}, expected {shown(known) if known else 'nothing'}"
    origin = found.origin if found else file.origin(1)
    raise NotWritten(str(Fault(origin, key, f"{told}: it has changed since it was read; reload first")))


def _values(data: bytes, file: File, keys: Mapping[str, str]) -> dict[str, Origin]:
    return {each.key: each.origin for each in _settings(data, file) if each.key in keys}


def _settings(data: bytes, file: File) -> list[Setting]:
    reading = parse_ini(data.decode("utf-8-sig"), file)
    return [each for each in reading.settings if each.section == SETTINGS.name]
