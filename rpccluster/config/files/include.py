"""Reads the file of a cluster and the files that it includes. Any process.

``include`` stands in ``[cluster]``, and one file alone has that section: an included file includes none. Each file has
its own ``[DEFAULT]``; the sections of all become one reading.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from dataclasses import replace

from rpccluster.address import native_path
from rpccluster.config.files.conf_json import read_conf_json
from rpccluster.config.files.ini import read_ini
from rpccluster.config.files.reading import Reading, mark_of
from rpccluster.config.origin import Fault, File, Origin, Setting
from rpccluster.config.sections.cluster import CLUSTER

__all__ = ["read_files"]

_INCLUDE = "include"


def read_files(path: str, shown_path: str) -> Reading:
    """Read the file at ``path``, which faults call ``shown_path``, and the files that it includes.

    Returns the content of all as one. Reports faults, never raises them.
    """
    first = File(path, shown_path)
    marks: dict[str, int | None] = {}
    readings = [_read(first, marks)]
    files = {os.path.realpath(path): first}
    folders: list[str] = []
    for setting in [each for each in readings[0].settings if (each.section, each.key) == (CLUSTER.name, _INCLUDE)][-1:]:
        faults: list[Fault] = []
        folders += [os.path.join(first.folder, _fixed_folder(native_path(each))) for each in _patterns(setting)]
        for file in _included(setting, first, faults):
            if files.setdefault(os.path.realpath(file.path), file) is file:  # one that two patterns match is read once
                readings.append(_read(file, marks))
        readings.append(Reading(faults=tuple(faults)))
    return replace(_joined(readings), files=tuple(files.values()), marks=marks, folders=tuple(folders))


def _read(file: File, marks: dict[str, int | None]) -> Reading:
    """Read ``file``. Its mark is made first, so that a change at this moment shows later."""
    marks[os.path.abspath(file.path)] = mark_of(file.path)
    is_json = file.path.endswith(".json") and not file.is_first
    return read_conf_json(file) if is_json else read_ini(file)


def _fixed_folder(pattern: str) -> str:
    """Return the folder where files come that ``pattern`` matches, or one above that no sign of it stands for."""
    folder = os.path.dirname(pattern)
    while glob.has_magic(folder):
        folder = os.path.dirname(folder)
    return folder


def _included(setting: Setting, by: File, faults: list[Fault]) -> Iterator[File]:
    """Yield the files that ``setting`` includes, in order; a name without a file is added to ``faults``."""
    number = 0
    for pattern in _patterns(setting):
        place = os.path.join(glob.escape(by.folder), native_path(pattern))
        for path in sorted(glob.glob(place)):
            number += 1
            name = path if os.path.isabs(pattern) else path[len(os.path.join(by.folder, "")) :]
            yield File(path, os.path.join(os.path.dirname(by.shown), name), number)
        if glob.escape(pattern) == pattern and not os.path.lexists(os.path.join(by.folder, native_path(pattern))):
            problem = f"found {pattern!r}, expected a file that exists, or a pattern such as conf.d/*.ini"
            faults.append(Fault(setting.origin, _INCLUDE, problem, CLUSTER.name))


def _patterns(setting: Setting) -> tuple[str, ...]:
    try:
        patterns: tuple[str, ...] = CLUSTER.options[_INCLUDE].type.parse(setting.text)
        return patterns
    except ValueError:  # the conversion of the values reports it
        return ()


def _joined(readings: list[Reading]) -> Reading:
    """Join the readings of several files. A section that stands in two of them is a fault, and the first one counts."""
    settings: list[Setting] = []
    faults: list[Fault] = []
    headers: dict[str, Origin] = {}
    for reading in readings:
        for header in headers.keys() & reading.headers.keys():
            problem = f"found it again, expected it once: it stands at {headers[header]}"
            faults.append(Fault(reading.headers[header], f"[{header}]", problem))
        settings += [each for each in reading.settings if each.section not in headers]
        faults += reading.faults
        headers.update({header: place for header, place in reading.headers.items() if header not in headers})
    fields = {header: values for reading in reversed(readings) for header, values in reading.fields.items()}
    return Reading(tuple(settings), tuple(faults), headers, fields)
