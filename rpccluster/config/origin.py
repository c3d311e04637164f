"""The place where a value of the configuration was written, and the fault that it has there.

Owns the wording of a fault's place; the finder of a fault words the problem. Any process.
"""

from __future__ import annotations

import os.path
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

__all__ = [
    "BUILT_IN",
    "COMMANDED",
    "COMMAND_LINE",
    "ENVIRONMENT",
    "Fault",
    "File",
    "Origin",
    "Setting",
    "flag_origin",
    "nearest",
]


@dataclass(frozen=True, order=True)
class Origin:
    """A place where an option gets its value.

    Places sort as they override, file, environment, flags; those in files as the files are read, then by line.
    """

    rank: int
    file: int
    line: int
    text: str

    def __str__(self) -> str:
        return self.text


BUILT_IN = Origin(0, 0, 0, "default")
ENVIRONMENT = Origin(2, 0, 0, "RPCCLUSTER_CMD_ARGS")
COMMAND_LINE = Origin(3, 0, 0, "command line")
COMMANDED = Origin(4, 0, 0, "config set")


@dataclass(frozen=True)
class File:
    """A file of the configuration. ``shown`` is its path as the user wrote it; ``number`` counts files, from 0."""

    path: str
    shown: str
    number: int = 0

    @property
    def is_first(self) -> bool:
        """Return whether no other file includes it."""
        return self.number == 0

    @property
    def folder(self) -> str:
        """The absolute path of the folder that it lies in, by the name that the user gave it."""
        return os.path.dirname(os.path.abspath(self.path))

    def origin(self, line: int, column: int | None = None) -> Origin:
        """Return the place of line ``line`` (from 1), at ``column`` (from 1) if that is given."""
        place = f"{line}:{column}" if column else f"{line}"
        return Origin(1, self.number, line, f"{self.shown}:{place}")


def flag_origin(flag: str) -> Origin:
    """Return the place of a flag of the command line, such as ``--workers``."""
    return Origin(3, 0, 0, f"flag {flag}")


@dataclass(frozen=True)
class Setting:
    """The text of a value that a source gives to an option; ``section`` is the header that the option stands under.

    ``is_shared`` if it stands in ``[DEFAULT]``. ``read`` holds the value itself if the file's form has it.
    """

    section: str
    key: str
    text: str
    origin: Origin
    is_shared: bool = False
    read: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Fault:
    """One mistake in the configuration. ``problem`` says what was found and what was expected.

    ``section`` is the header that ``key`` stands under; None where that is no section's option.
    """

    origin: Origin
    key: str
    problem: str
    section: str | None = None

    def __str__(self) -> str:
        return f"{self.origin}: {self.key}: {self.problem}"


def nearest(name: str, names: Iterable[str]) -> str:
    """Return the end of a fault that suggests the one of ``names`` that is most like ``name``; empty if none is."""
    from difflib import get_close_matches  # only a faulty file needs it

    return "".join(f"; did you mean {name}?" for name in get_close_matches(name, list(names), 1))
