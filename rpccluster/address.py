"""Parses addresses as users write them, and writes them in one form. Opens nothing; any process."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Union

from rpccluster.errors import AddressError

__all__ = [
    "Address",
    "BindAddress",
    "PassedAddress",
    "ProxiedAddress",
    "TCPAddress",
    "UnixAddress",
    "native_path",
    "parse_address",
    "parse_bind",
    "unix_address",
]

_HOST_PORT = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%\w]+\]|[^\[\]:/\s]+):(?P<port>[0-9]{1,5})\Z")
_PASSED_NAME = re.compile(r"[!-+\--9;-~]{0,255}")  # systemd.socket(5), FileDescriptorName; without "," and spaces
_PROXIED = "tcp+proxy://"
_UNIX_PATH_BYTES = 107  # sun_path holds 108 with its NUL: unix(7)


@dataclass(frozen=True)
class TCPAddress:
    """A host name, IPv4 or IPv6 address and a port; port 0 asks the kernel for a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp://{host}:{self.port}"


@dataclass(frozen=True)
class ProxiedAddress(TCPAddress):
    """A TCP address at which proxies connect, which say by the PROXY protocol who is behind them."""

    def __str__(self) -> str:
        return super().__str__().replace("tcp://", _PROXIED)


@dataclass(frozen=True)
class UnixAddress:
    """The path of a Unix domain socket."""

    path: str

    def __str__(self) -> str:
        return f"unix://{self.path}"


@dataclass(frozen=True)
class PassedAddress:
    """The listening sockets that systemd passes under ``name``; all that it passes if ``name`` is empty."""

    name: str

    def __str__(self) -> str:
        return f"fd://{self.name}"


Address = Union[TCPAddress, UnixAddress]
BindAddress = Union[Address, PassedAddress]


def parse_address(text: str) -> Address:
    """Parse ``tcp://HOST:PORT``, ``HOST:PORT``, ``tcp://[::1]:PORT`` or ``unix:///path``.

    Raises `AddressError`, which says what was found and what was expected.
    """
    text = text.strip()
    if text.startswith("fd:"):
        told = "fd:// is for bind: there it names what systemd passes"
        raise AddressError(f"found {text!r}, expected tcp://HOST:PORT, HOST:PORT or unix:///path ({told})")
    if text.startswith("unix:"):
        return _unix_address(text)
    match = _HOST_PORT.match(text[len("tcp://") :] if text.startswith("tcp://") else text)
    if match is None:
        raise AddressError(f"found {text!r}, expected tcp://HOST:PORT, HOST:PORT or unix:///path")
    port = int(match["port"])
    if port > 65535:
        raise AddressError(f"found port {port} in {text!r}, expected 0 to 65535")
    return TCPAddress(match["host"].strip("[]"), port)


def parse_bind(text: str) -> BindAddress:
    """Parse an address to listen at: one that `parse_address` knows, ``tcp+proxy://HOST:PORT``, ``fd://`` or
    ``fd://NAME``.

    Raises `AddressError`.
    """
    text = text.strip()
    if text.startswith(_PROXIED):
        address = parse_address("tcp://" + text[len(_PROXIED) :])
        assert isinstance(address, TCPAddress)
        return ProxiedAddress(address.host, address.port)
    if not text.startswith("fd:"):
        return parse_address(text)
    name = text[len("fd://") :]
    if not text.startswith("fd://") or not _PASSED_NAME.fullmatch(name):
        raise AddressError(f"found {text!r}, expected fd:// or fd://NAME, a FileDescriptorName of systemd's")
    return PassedAddress(name)


def _unix_address(text: str) -> UnixAddress:
    path = text[len("unix://") :]
    if not text.startswith("unix:///"):
        raise AddressError(f"found {text!r}, expected unix:///path with an absolute path")
    return unix_address(path)


def unix_address(path: str) -> UnixAddress:
    """Return the address of a plain ``path``. Raises `AddressError` if the kernel cannot hold the path."""
    if "\0" in path:
        raise AddressError(f"found the path {path!r}, expected one without NUL")
    try:
        native = native_path(path)
    except UnicodeEncodeError:
        raise AddressError(f"found the path {path!r}, expected one that can be encoded") from None
    if len(os.fsencode(native)) > _UNIX_PATH_BYTES:
        raise AddressError(f"found the path {path!r}, expected at most {_UNIX_PATH_BYTES} bytes")
    return UnixAddress(native)


def native_path(path: str) -> str:
    """Convert ``path`` for this process's file functions. Raises UnicodeEncodeError for a lone surrogate.

    File names are UTF-8 in every locale. Python itself takes only ASCII under ``LANG=C`` without the UTF-8 mode.
    """
    return os.fsdecode(path.encode("utf-8", "surrogateescape"))
