"""The content of a configuration file of any form: settings, faults, and the places of its sections. Any process.

Owns reading the bytes of a file and their limits; `ini` and `conf_json` beside it know the forms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rpccluster.config.origin import Fault, File, Origin, Setting

__all__ = ["Reading", "mark_of", "read_text"]

_LARGEST_FILE = 1 << 20


@dataclass(frozen=True)
class Reading:
    """The content of a file. A later setting of a key overrides an earlier one of the same section.

    ``headers`` are the places where its sections begin, ``[DEFAULT]`` and unknown ones left out. ``fields`` are values
    that a section has beside its options, by its header. ``files`` are those that were read, ``marks`` those of their
    content, by path, and ``folders`` those where further ones may come.
    """

    settings: tuple[Setting, ...] = ()
    faults: tuple[Fault, ...] = ()
    headers: Mapping[str, Origin] = field(default_factory=dict)
    fields: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    files: tuple[File, ...] = ()
    marks: Mapping[str, int | None] = field(default_factory=dict)
    folders: tuple[str, ...] = ()


def mark_of(path: str) -> int | None:
    """Return what tells the content of the file at ``path`` from another, in this process; None if it has none."""
    try:
        with open(path, "rb") as opened:
            return hash(opened.read(_LARGEST_FILE + 1))
    except OSError:
        return None


def read_text(file: File) -> str | Fault:
    """Return the text of ``file``, or the fault that keeps it from being read."""
    try:
        with open(file.path, "rb") as opened:
            data = opened.read(_LARGEST_FILE + 1)
        if len(data) > _LARGEST_FILE:
            return _fault(file, 1, f"found more than {_LARGEST_FILE} bytes, expected a configuration file")
        return data.decode("utf-8-sig")
    except OSError as error:
        return _fault(file, 1, f"cannot read the file: {error.strerror}")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        return _fault(file, line, f"found the byte 0x{error.object[error.start]:02x}, expected UTF-8 text")


def _fault(file: File, line: int, problem: str) -> Fault:
    return Fault(file.origin(line), "config", problem)
