"""The value types of options: each reads a value from text, and writes text that reads the same.

Owns how a value is written and its range. Looks at the text alone; `rpccluster.config.checks` asks the machine
for the rest. Any process.
"""

from __future__ import annotations

import ipaddress
import os.path
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from rpccluster.address import Address, BindAddress, native_path, parse_address, parse_bind
from rpccluster.config.authkeys import KeyFile, read_keys
from rpccluster.config.cpus import CPUChoice
from rpccluster.errors import AddressError

__all__ = [
    "ACCESS_LOG",
    "ACCOUNT",
    "ADDRESSES",
    "BIND",
    "BOOLEAN",
    "CPUS",
    "DURATION",
    "FILES",
    "FOLDERS",
    "KEY_FILE",
    "LINE",
    "LOG_FILE",
    "LOG_FORMAT",
    "LOG_LEVEL",
    "LOG_LEVELS",
    "LOOPBACK",
    "MODE",
    "NAME",
    "NETWORKS",
    "PATH",
    "SERVICE",
    "SIZE",
    "SOCKET_PATH",
    "UMASK",
    "ValueType",
    "choice",
    "integer",
    "items",
    "optional",
    "shown",
    "size",
]

T = TypeVar("T")
N = TypeVar("N", int, float)

LOG_LEVELS = ("debug", "info", "warning", "error", "critical")

LOOPBACK = "loopback"

_LARGEST = 2**63 - 1  # what a cell of the scoreboard can hold
_LONGEST_SECONDS = 10**9
_MOST_SHOWN = 120
_BOOLEANS = {**dict.fromkeys(("true", "yes", "on", "1"), True), **dict.fromkeys(("false", "no", "off", "0"), False)}
_SIZE = re.compile(r"([0-9]{1,19})\s*([KMG]?)", re.IGNORECASE)
_SERVICE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
_OCTAL = re.compile(r"(0o)?[0-7]{1,4}")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def _keep(value: T, start_folder: str) -> T:
    return value


@dataclass(frozen=True)
class ValueType(Generic[T]):
    """Converts one type of option value from text and to text.

    ``expected`` completes the sentence "found …, expected …". ``write`` gives text that ``parse`` turns into the
    same value. ``anchor`` makes the relative paths of a value absolute, starting in a folder.
    """

    expected: str
    read: Callable[[str], T]
    write: Callable[[T], str] = str
    anchor: Callable[[T, str], T] = _keep

    def parse(self, text: str) -> T:
        """Convert ``text`` to its value. Raises `ValueError` whose text is ``found …, expected …``."""
        try:
            return self.read(text.strip())
        except AddressError:  # its text already names the address at fault
            raise
        except ValueError:
            raise ValueError(f"found {shown(text)}, expected {self.expected}") from None


def shown(text: str) -> str:
    """Quote ``text`` for a fault: on one line and not too long."""
    text = text.strip()
    if not text:
        return "nothing"
    return repr(text if len(text) <= _MOST_SHOWN else text[: _MOST_SHOWN - 1] + "…")


def integer(low: int, high: int = _LARGEST) -> ValueType[int]:
    """Make the type of whole numbers from ``low`` to ``high``."""
    span = f"{low} or more" if high == _LARGEST else f"{low} to {high}"
    return ValueType(f"a whole number, {span}", lambda text: _within(int(text), low, high))


def size(low: int, high: int = _LARGEST) -> ValueType[int]:
    """Make the type of byte counts from ``low`` to ``high``; K, M and G stand for powers of 1024."""
    span = f"{low} or more" if high == _LARGEST else f"{low} to {high}"
    return ValueType(
        f"a size in bytes such as 16M, {span}", lambda text: _within(_read_size(text), low, high), _write_size
    )


def choice(*words: str) -> ValueType[str]:
    """Make the type of a word that is one of ``words``, in any case."""
    return ValueType(f"{', '.join(words[:-1])} or {words[-1]}", lambda text: _one_of(words, text.lower()))


def optional(value_type: ValueType[T], nothing: T | None, word: str = "") -> ValueType[T | None]:
    """Make the type of values of ``value_type`` that may be ``nothing``, which a file says by ``word`` or no text."""
    return ValueType(
        f"{value_type.expected}, or {word or 'nothing'}",
        lambda text: value_type.read(text) if text.lower() not in ("", word) else nothing,
        lambda value: word if value is None or value == nothing else value_type.write(value),
        lambda value, start_folder: value if value is None else value_type.anchor(value, start_folder),
    )


def items(text: str) -> list[str]:
    """Split ``text`` at its commas; no text has no items."""
    return [item.strip() for item in text.split(",")] if text else []


def _one_of(words: tuple[str, ...], text: str) -> str:
    if text not in words:
        raise ValueError(text)
    return text


def _within(value: N, low: int, high: int) -> N:
    if not low <= value <= high:
        raise ValueError(value)
    return value


def _read_size(text: str) -> int:
    match = _matched(_SIZE, text)
    return int(match[1]) * _UNITS[match[2].upper()]


def _write_size(value: int) -> str:
    unit = next((unit for unit in "GMK" if value and value % _UNITS[unit] == 0), "")
    return f"{value // _UNITS[unit]}{unit}"


def _matched(pattern: re.Pattern[str], text: str) -> re.Match[str]:
    match = pattern.fullmatch(text)
    if match is None:
        raise ValueError(text)
    return match


def _read_boolean(text: str) -> bool:
    if text.lower() not in _BOOLEANS:
        raise ValueError(text)
    return _BOOLEANS[text.lower()]


def _write_boolean(value: bool) -> str:
    return "true" if value else "false"


def _read_seconds(text: str) -> float:
    return _within(float(text), 0, _LONGEST_SECONDS)  # refuses "nan", too


def _write_seconds(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def _read_octal(text: str) -> int:
    return _within(int(_matched(_OCTAL, text)[0], 8), 0, 0o777)


def _write_octal(value: int) -> str:
    return f"{value:04o}"


def _read_line(text: str) -> str:
    if _UNPRINTABLE.search(text):
        raise ValueError(text)
    return text


def _read_name(text: str) -> str:
    if not text:
        raise ValueError(text)
    return _read_line(text)


def _read_log_file(text: str) -> str:
    return "" if text in ("-", "stderr") else _read_line(text)


def _read_socket_path(text: str) -> str:
    if "://" in text:
        raise ValueError(text)
    return _read_line(text)


def _read_access_log(text: str) -> str:
    if text in ("", "-"):
        return "on" if text else "off"
    switch = _BOOLEANS.get(text.lower())
    return _read_line(text) if switch is None else "on" if switch else "off"


def _read_service(text: str) -> str:
    return _matched(_SERVICE, text)[0]


def _read_addresses(text: str) -> tuple[Address, ...]:
    return tuple(parse_address(item) for item in items(text))


def _read_bind(text: str) -> tuple[BindAddress, ...]:
    return tuple(parse_bind(item) for item in items(text))


def _read_networks(text: str) -> str:
    """Read addresses and networks, in one form; loopback stands for this machine's own."""
    found = [item if item == LOOPBACK else str(ipaddress.ip_network(item)) for item in items(text)]
    if not found:
        raise ValueError(text)
    return ", ".join(found)


def _read_folders(text: str) -> tuple[str, ...]:
    folders = tuple(_read_line(item) for item in items(text))
    if not all(folders):
        raise ValueError(text)
    return folders


def _write_items(values: tuple[object, ...]) -> str:
    return ", ".join(map(str, values))


def _anchor(path: str, start_folder: str) -> str:
    return os.path.normpath(os.path.join(start_folder, native_path(path))) if path else ""


def _anchor_key_file(found: KeyFile, start_folder: str) -> KeyFile:
    return read_keys(_anchor(found.path, start_folder)) if found else found


def _anchor_folders(paths: tuple[str, ...], start_folder: str) -> tuple[str, ...]:
    return tuple(_anchor(path, start_folder) for path in paths)


def _anchor_access_log(value: str, start_folder: str) -> str:
    return value if value in ("on", "off") else _anchor(value, start_folder)


SERVICE = ValueType("module:Class or module:object", _read_service)
BOOLEAN = ValueType("true or false", _read_boolean, _write_boolean)
DURATION = ValueType(f"seconds, 0 to {_LONGEST_SECONDS}", _read_seconds, _write_seconds)
SIZE = size(0)
MODE = ValueType("permissions in octal, 0000 to 0777", _read_octal, _write_octal)
UMASK = optional(ValueType("a umask in octal, 0000 to 0777", _read_octal, _write_octal), None)
NAME = ValueType("a name on one line", _read_name)
LINE = ValueType("text on one line", _read_line)
ACCOUNT = ValueType("a name or a number, or nothing", _read_line)
PATH = ValueType("a path on one line", _read_line, anchor=_anchor)
SOCKET_PATH = ValueType("the plain path of a Unix socket", _read_socket_path, anchor=_anchor)
KEY_FILE = ValueType("a path on one line", lambda text: KeyFile(_read_line(text)), str, _anchor_key_file)
FILES = ValueType("files or patterns separated by commas", _read_folders, _write_items)
NETWORKS = ValueType("loopback, addresses and networks such as 10.0.0.0/8, separated by commas", _read_networks)
FOLDERS = ValueType("folders separated by commas", _read_folders, _write_items, _anchor_folders)
ADDRESSES = ValueType("addresses separated by commas", _read_addresses, _write_items)
BIND = ValueType("addresses separated by commas", _read_bind, _write_items)
CPUS = ValueType("none, auto or a list of CPUs such as 0-3,8", CPUChoice.parse)
LOG_FILE = ValueType("a path on one line, or stderr", _read_log_file, lambda path: path or "stderr", _anchor)
LOG_LEVEL = choice(*LOG_LEVELS)
LOG_FORMAT = choice("text", "json")
ACCESS_LOG = ValueType("off, on or a path on one line", _read_access_log, anchor=_anchor_access_log)
