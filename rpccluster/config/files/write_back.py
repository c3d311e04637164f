"""Puts a new value into the text of an INI file, and changes nothing but that value's bytes. Pure; any process.

It reads the result as `ini` beside it does, and refuses it unless every value but the new one is as before. So spacing,
delimiters, comments, line ends and a byte order mark stay. `rpccluster.system.replacing` puts it in the file's place.
"""

from __future__ import annotations

import codecs
import io
import re

from rpccluster.config.files.ini import parse_ini, scan_ini
from rpccluster.config.files.lines import Entry, Header, Item
from rpccluster.config.origin import Fault, File, Setting
from rpccluster.config.sections import ONLY_EQUALS
from rpccluster.config.values import shown
from rpccluster.errors import NotWritten

__all__ = ["with_value"]

_BEFORE_VALUE = re.compile(r"\s*[^=:]+?(\s*[=:]\s*)")
_BEFORE_VALUE_IN = dict.fromkeys(ONLY_EQUALS, re.compile(r"\s*[^=]+?(\s*=\s*)"))  # by the section
_DEEPER = "    "


def with_value(data: bytes, file: File, section: str, key: str, value: str) -> bytes:
    """Return ``data``, the content of ``file``, with ``value`` for ``key`` in the section of that header.

    A key that is not there is added at the section's end, a section at the end of the first file. Raises `NotWritten`
    where the file has a fault, the present value comes from an interpolation, or the result would not read back so.
    """
    mark = codecs.BOM_UTF8 if data.startswith(codecs.BOM_UTF8) else b""
    try:
        text = data[len(mark) :].decode()
        new = _Text(text, file).with_value(section, key, value)
        return mark + new.encode()
    except UnicodeError:
        place = file.origin(1)
        raise NotWritten(str(Fault(place, key, f"found {value!a}, expected UTF-8 text, in a file of that"))) from None


class _Text:
    """A file's text, its lines with their ends, and the items that a reader finds in them."""

    def __init__(self, text: str, file: File) -> None:
        self._text = text
        self._file = file
        self._lines = list(io.StringIO(text, newline=""))
        self._items = scan_ini(text)

    def with_value(self, section: str, key: str, value: str) -> str:
        """Return the text with ``value``."""
        before = parse_ini(self._text, self._file)
        if before.faults:
            raise NotWritten(str(before.faults[0]))
        texts = value.replace("%", "%%").split("\n")
        own = [each for each in self._items if _section_of(each) == section]
        entry = next((each for each in own if isinstance(each, Entry) and each.key == key), None)
        if entry is not None and "%(" in entry.text.replace("%%", ""):
            problem = f"found {shown(entry.text)}, which takes a value from elsewhere, expected one that stands here"
            raise self._refusal(entry.line, key, problem)
        if entry is not None:
            line = entry.line
            new = self._replaced(entry, texts)
        elif own:
            line, new = self._added(own[-1], key, texts)
        else:
            line, new = len(self._lines) or 1, self._with_section(section, key, texts)
        self._verify(before.settings, new, line, Setting(section, key, value, self._file.origin(line)))
        return new

    def _replaced(self, entry: Entry, texts: list[str]) -> str:
        """Return the text with ``texts`` for the lines of the value. Comments between them stay."""
        lines = list(self._lines)
        numbers = [entry.line - 1, *filter(self._is_content, range(entry.line, entry.last_line))]
        for number, text in zip(numbers, texts):
            before, _, after = _divided(lines[number], entry.section if number == numbers[0] else None)
            lines[number] = before + text + after
        for number in numbers[len(texts) :]:
            lines[number] = ""
        more = texts[len(numbers) :]
        indent = _indent(self._lines[numbers[-1]]) + ("" if len(numbers) > 1 else _DEEPER)
        lines[numbers[-1]] = self._followed(lines[numbers[-1]], [indent + text for text in more])
        new = "".join(lines)
        return new if _end(self._lines[-1]) else new[: len(new) - len(_end(new))]

    def _is_content(self, number: int) -> bool:
        content = self._lines[number].strip()
        return bool(content) and content[0] not in "#;"

    def _added(self, last: Item, key: str, texts: list[str]) -> tuple[int, str]:
        """Return the line of ``last``, the last item of a section, and the text with the key behind it."""
        line, indent, delimiter = last.line, _indent(self._lines[last.line - 1]), " = "
        if isinstance(last, Entry):
            match = _before_value(last.section).match(self._lines[last.line - 1].strip())
            line, delimiter = last.last_line, match[1] if match else delimiter
        elif last is not self._items[-1]:  # the next item is to be no continuation of this entry
            indent = _indent(self._lines[self._items[self._items.index(last) + 1].line - 1])
        lines = list(self._lines)
        lines[line - 1] = self._followed(lines[line - 1], _written(indent, key, delimiter, texts))
        return line, "".join(lines)

    def _with_section(self, section: str, key: str, texts: list[str]) -> str:
        """Return the text with the section at its end."""
        if not self._file.is_first:
            raise self._refusal(1, key, f"found no [{section}] in this file, expected it: it could belong to any file")
        gap = [""] if self._lines and self._lines[-1].strip() else []
        return self._followed(self._text, [*gap, f"[{section}]", *_written("", key, " = ", texts)])

    def _followed(self, text: str, new: list[str]) -> str:
        """Write the lines ``new`` behind ``text``. If it lacks a line end, the last of them lacks it, too."""
        end = _end(text) or (_end(self._lines[0]) if self._lines else "") or "\n"
        return text + "".join(line + end if _end(text) or not text else end + line for line in new)

    def _verify(self, before: tuple[Setting, ...], new: str, line: int, wanted: Setting) -> None:
        """Refuse the text ``new`` unless it has the settings ``before``, but for the one that is ``wanted``."""
        after = parse_ini(new, self._file)
        expected, found = _values(before), _values(after.settings)
        identity = (wanted.section, wanted.key)
        expected[identity] = wanted.text
        if after.faults or found.get(identity) != wanted.text:
            problem = f"found {shown(wanted.text)}, expected a value that reads back as itself from this file"
            raise self._refusal(line, wanted.key, problem)
        changed = [place for place in expected.keys() | found.keys() if expected.get(place) != found.get(place)]
        for section, key in sorted(changed)[:1]:
            problem = f"found it in the value of {key} in [{section}], expected no other value to change"
            raise self._refusal(line, wanted.key, problem)

    def _refusal(self, line: int, key: str, problem: str) -> NotWritten:
        return NotWritten(str(Fault(self._file.origin(line), key, problem)))


def _before_value(section: str | None) -> re.Pattern[str]:
    return _BEFORE_VALUE_IN.get(section or "", _BEFORE_VALUE)


def _divided(line: str, first_of: str | None) -> tuple[str, str, str]:
    """Divide a line of an entry: what stands before its part of the value, that part, and what stands behind it.

    ``first_of`` is the entry's section if it is its first line.
    """
    content = line.strip()
    start = len(_indent(line))
    end = start + len(content)
    if first_of is not None:
        match = _before_value(first_of).match(content)
        assert match is not None  # it is an entry
        start += match.end()
    if start == end:  # no value: it begins behind the blanks
        start = end = len(line) - len(_end(line))
    return line[:start], line[start:end], line[end:]


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]


def _end(text: str) -> str:
    """Return the line end that ``text`` ends with."""
    return next((end for end in ("\r\n", "\n", "\r") if text.endswith(end)), "")


def _written(indent: str, key: str, delimiter: str, texts: list[str]) -> list[str]:
    return [f"{indent}{key}{delimiter}{texts[0]}", *(indent + _DEEPER + text for text in texts[1:])]


def _section_of(item: Item) -> str | None:
    return item.name if isinstance(item, Header) else item.section if isinstance(item, Entry) else None


def _values(settings: tuple[Setting, ...]) -> dict[tuple[str, str], str]:
    """Return the text of each key by its section; a section's own comes after one of [DEFAULT]."""
    return {(each.section, each.key): each.text for each in settings}
