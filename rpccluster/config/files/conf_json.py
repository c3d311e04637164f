"""Reads a file of plugins in JSON, as Remind-You has it: ``{"plugins": [{name, desc, fileName, args}]}``. Any process.

An entry is the section ``[plugin:NAME]`` with ``description``, ``args`` and ``run = plugins.FILENAME:run``. Python's
decoder tells no places, so this module walks through the text, by the decoder's own steps, to have the line of each
field.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from rpccluster.config.files.reading import Reading, read_text
from rpccluster.config.origin import Fault, File, Origin, Setting, nearest
from rpccluster.config.sections import header_problem
from rpccluster.config.sections.plugin import PLUGIN
from rpccluster.config.values import shown

__all__ = ["parse_conf_json", "read_conf_json"]

_PLUGINS = "plugins"  # the list of entries, and the folder of their modules
_FIELDS = ("name", "desc", "fileName", "args")
_TEXTS = _FIELDS[:3]
_REQUIRED = ("name", "fileName")
_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\n\r]*")


class _Part(NamedTuple):
    """An element of a list, or a field of an object: its name, the place where it begins, and its value."""

    name: str
    start: int  # of its name, in a list of its value
    at: int  # of its value
    value: Any


def read_conf_json(file: File) -> Reading:
    """Read ``file``. Reports faults, never raises them."""
    text = read_text(file)
    return Reading(faults=(text,)) if isinstance(text, Fault) else parse_conf_json(text, file)


def parse_conf_json(text: str, file: File) -> Reading:
    """Return the settings and faults of ``text``, the content of ``file``."""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return _no_json(file.origin(error.lineno, error.colno), error.msg[:1].lower() + error.msg[1:])
    except (ValueError, RecursionError) as error:  # too many digits, or levels
        return _no_json(file.origin(1), str(error))
    return _Entries(text, file).read()


def _no_json(place: Origin, problem: str) -> Reading:
    return Reading(faults=(Fault(place, "config", f"found no JSON: {problem}"),))


class _Entries:
    """The entries of one file, and the faults in them."""

    def __init__(self, text: str, file: File) -> None:
        self._text = text
        self._file = file
        self._settings: list[Setting] = []
        self._faults: list[Fault] = []
        self._headers: dict[str, Origin] = {}
        self._fields: dict[str, dict[str, Any]] = {}

    def read(self) -> Reading:
        """Return the content of the file."""
        for entry in self._entries():
            if isinstance(entry.value, dict):
                self._take(entry)
            else:
                problem = f"found {shown(json.dumps(entry.value))}, expected an object: a plugin"
                self._refuse(entry.at, _PLUGINS, problem)
        return Reading(tuple(self._settings), tuple(self._faults), self._headers, self._fields)

    def _list(self) -> int | None:
        """Return the place of the list of entries; None if there is none."""
        start = _after_space(self._text, 0)
        if self._text[start] != "{":
            return start
        found = None
        for part in self._parts(start):
            if part.name != _PLUGINS:
                self._refuse(part.start, part.name, f"found an unknown field, expected {_PLUGINS}")
            elif found is not None:
                self._refuse(part.start, _PLUGINS, "found it again, expected it once")
            else:
                found = part.at
        if found is None:
            self._refuse(start, _PLUGINS, "found no such field, expected one")
        return found

    def _entries(self) -> Iterator[_Part]:
        start = self._list()
        if start is not None and self._text[start] != "[":
            self._refuse(start, _PLUGINS, "found something else, expected a list of plugins")
        elif start is not None:
            yield from _parts(self._text, start)

    def _take(self, entry: _Part) -> None:
        """Make one entry a section, unless it is at fault."""
        before = len(self._faults)
        fields: dict[str, _Part] = {}
        for field in self._parts(entry.at):
            problem = "found it again, expected it once" if field.name in fields else _problem(field)
            if problem:
                self._refuse(field.start, field.name, problem)
            fields[field.name] = field
        for name in _REQUIRED:
            if name not in fields:
                self._refuse(entry.at, name, "found no such field, expected one")
        if len(self._faults) == before:
            self._set(entry, fields)

    def _set(self, entry: _Part, fields: dict[str, _Part]) -> None:
        header = f"{PLUGIN.name}:{fields['name'].value}"
        if header in self._headers:
            place = self._headers[header]
            self._refuse(fields["name"].start, f"[{header}]", f"found it again, expected it once: it stands at {place}")
            return
        self._headers[header] = self._place(entry.at)
        argument = fields.get("args", entry._replace(value=None))  # a plugin of Remind-You is called with None then
        self._add(header, "run", fields["fileName"], f"{_PLUGINS}.{fields['fileName'].value}:run")
        if "desc" in fields:
            self._add(header, "description", fields["desc"], fields["desc"].value)
        self._add(header, "args", argument, json.dumps(argument.value), ((argument.value,),))
        self._fields[header] = {"pythonpath": (self._modules_folder(),), "also_run": f"{fields['fileName'].value}:run"}

    def _add(self, header: str, key: str, field: _Part, text: str, read: tuple[Any, ...] = ()) -> None:
        self._settings.append(Setting(header, key, text, self._place(field.start), read=read))

    def _modules_folder(self) -> str:
        """Return the folder above the ``plugins`` that the file lies in; its own folder if that has another name."""
        folder, name = os.path.split(self._file.folder)
        return folder if name == _PLUGINS else self._file.folder

    def _parts(self, at: int) -> Iterator[_Part]:
        return _parts(self._text, at)

    def _place(self, at: int) -> Origin:
        return self._file.origin(self._text.count("\n", 0, at) + 1)

    def _refuse(self, at: int, key: str, problem: str) -> None:
        self._faults.append(Fault(self._place(at), key, problem))


def _problem(field: _Part) -> str:
    """Say what is wrong with a field of an entry; empty if nothing is."""
    if field.name not in _FIELDS:
        return f"found an unknown field, expected {', '.join(_FIELDS)}{nearest(field.name, _FIELDS)}"
    if field.name in _TEXTS and not isinstance(field.value, str):
        return f"found {shown(json.dumps(field.value))}, expected text"
    if field.name == "name":
        return header_problem(f"{PLUGIN.name}:{field.value}") if field.value else "found nothing, expected a name"
    if field.name == "fileName" and not _MODULE.fullmatch(field.value):
        return f"found {shown(field.value)}, expected the name of a module"
    return ""


def _parts(text: str, at: int) -> Iterator[_Part]:
    """Yield the parts of the list or object that begins at ``at`` in ``text``, which is JSON."""
    is_object = text[at] == "{"
    at = _after_space(text, at + 1)
    while text[at] not in "]}":
        start, name = at, ""
        if is_object:
            name, at = _DECODER.raw_decode(text, at)
            at = _after_space(text, _after_space(text, at) + 1)  # behind the colon
        value, end = _DECODER.raw_decode(text, at)
        yield _Part(name, start, at, value)
        at = _after_space(text, end)
        at = _after_space(text, at + 1) if text[at] == "," else at


def _after_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    assert match is not None  # it matches nothing, too
    return match.end()
