"""The header by which a proxy tells who is behind it: PROXY protocol, version 1 and 2. Sans-I/O; the worker reads it.

Source: the specification of HAProxy (doc/proxy-protocol.txt). Version 1 is a line of text, which stunnel sends;
version 2 is binary and may have the name of the client's certificate. Only a name that the proxy has verified counts.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator
from typing import NamedTuple

from rpccluster.errors import ProtocolError

__all__ = ["Header", "read_header"]

_LINE = b"PROXY "
_MOST_LINE_BYTES = 107  # section 2.1
_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"  # section 2.2
_FIXED_BYTES = 16
_MOST_BYTES = 8192  # of a binary header; one with a whole certificate in it is refused

_LOCAL, _PROXY = 0x20, 0x21
_TCP4, _TCP6 = 0x11, 0x21
_ADDRESS_BYTES = {_TCP4: 12, _TCP6: 36, 0x12: 12, 0x22: 36, 0x31: 216, 0x32: 216}  # by family and transport

_CRC32C, _SSL, _SSL_CN = 0x03, 0x20, 0x22
_CERT_CONN, _CERT_SESS = 0x02, 0x04


class Header(NamedTuple):
    """What a header says. ``peer`` is host and port, None if the proxy names no other than itself.

    ``is_local`` is true for a connection of the proxy's own, such as a health check. ``cert`` is the verified common
    name; empty if there is none. ``size`` is the length of the header.
    """

    size: int
    peer: tuple[str, int] | None = None
    is_local: bool = False
    cert: str = ""


def read_header(data: bytes) -> Header | None:
    """Read the header at the begin of ``data``; None if more has to come. Raises `ProtocolError` for anything else."""
    if data[: len(_LINE)] == _LINE[: len(data)]:
        return _read_line(data)
    if data[: len(_SIGNATURE)] == _SIGNATURE[: len(data)]:
        return _read_binary(data)
    raise ProtocolError("found no header of the PROXY protocol, expected one")


def _read_line(data: bytes) -> Header | None:
    line, end, _ = data[:_MOST_LINE_BYTES].partition(b"\r\n")
    if not end:
        if len(data) >= _MOST_LINE_BYTES:
            raise ProtocolError("found a PROXY line that does not end, expected at most 107 bytes")
        return None
    size = len(line) + len(end)
    words = line.decode("ascii", "replace").split(" ")
    if words[1:2] == ["UNKNOWN"]:
        return Header(size)
    if len(words) != 6 or words[1] not in ("TCP4", "TCP6"):
        raise ProtocolError("found another PROXY line, expected PROXY TCP4|TCP6 SOURCE DESTINATION PORT PORT")
    try:
        return Header(size, (_plain(words[2]), _port(words[4])))
    except ValueError:
        raise ProtocolError("found a PROXY line without addresses, expected two and their ports") from None


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise ValueError(text)
    return port


def _plain(host: str | bytes) -> str:
    """Write an address; an IPv4 one that is mapped into IPv6 as itself."""
    address = ipaddress.ip_address(host)
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def _read_binary(data: bytes) -> Header | None:
    if len(data) < _FIXED_BYTES:
        return None
    command, family, length = struct.unpack_from("!BBH", data, len(_SIGNATURE))
    size = _FIXED_BYTES + length
    if command not in (_LOCAL, _PROXY) or size > _MOST_BYTES:
        raise ProtocolError("found another command, or a longer header, of the PROXY protocol than is known")
    if len(data) < size:
        return None
    body = data[_FIXED_BYTES:size]
    own = _ADDRESS_BYTES.get(family, 0)
    if command == _PROXY and len(body) < own:
        raise ProtocolError("found a PROXY header that is too short for its addresses")
    values = dict(_values(body[own:])) if len(body) > own else {}
    if _CRC32C in values:
        _check(data[:size], values[_CRC32C])
    if command == _LOCAL:
        return Header(size, is_local=True)
    peer = None
    if family == _TCP4:
        peer = _plain(body[:4]), int.from_bytes(body[8:10], "big")
    elif family == _TCP6:
        peer = _plain(body[:16]), int.from_bytes(body[32:34], "big")
    return Header(size, peer, cert=_common_name(values.get(_SSL, b"")))


def _values(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and value of each value (section 2.2.1); the first of a type counts, so they come from the last on."""
    found, at = [], 0
    while at < len(data):
        if len(data) - at < 3:
            raise ProtocolError("found a PROXY header with a value that is cut off")
        kind, length = struct.unpack_from("!BH", data, at)
        value = data[at + 3 : at + 3 + length]
        if len(value) < length:
            raise ProtocolError("found a PROXY header with a value that is cut off")
        found.append((kind, value))
        at += 3 + length
    return reversed(found)


def _common_name(ssl: bytes) -> str:
    """Return the common name in the value of type SSL, if the client's certificate was verified."""
    if len(ssl) < 5:
        return ""
    client, verify = struct.unpack_from("!BI", ssl)
    if verify != 0 or not client & (_CERT_CONN | _CERT_SESS):
        return ""
    return dict(_values(ssl[5:])).get(_SSL_CN, b"").decode("utf-8", "replace")


def _check(header: bytes, found: bytes) -> None:
    """Compare the checksum ``found`` with that of the header, in which it stands as zeros (section 2.2.3)."""
    place = header.find(b"\x03\x00\x04" + found, _FIXED_BYTES)
    plain = header[: place + 3] + bytes(4) + header[place + 7 :]
    if len(found) != 4 or int.from_bytes(found, "big") != _crc32c(plain):
        raise ProtocolError("found a PROXY header with another checksum than its own")


def _crc32c(data: bytes) -> int:
    """Return the CRC-32C of ``data`` (RFC 3720, appendix B.4)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
