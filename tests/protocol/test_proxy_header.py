"""The PROXY header, in both versions: whole, byte by byte, with trailing data, and what is none."""

from __future__ import annotations

import socket
import struct

import pytest

from rpccluster.errors import ProtocolError
from rpccluster.protocol.proxy_header import Header, _crc32c, read_header

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def value(kind: int, data: bytes) -> bytes:
    """A value of a binary header."""
    return struct.pack("!BH", kind, len(data)) + data


def binary(command: int = 0x21, family: int = 0x11, body: bytes = b"") -> bytes:
    """A binary header."""
    return SIGNATURE + struct.pack("!BBH", command, family, len(body)) + body


TCP4 = socket.inet_aton("192.0.2.7") + socket.inet_aton("192.0.2.1") + struct.pack("!HH", 4711, 443)
TCP6 = socket.inet_pton(socket.AF_INET6, "2001:db8::7") + bytes(16) + struct.pack("!HH", 4711, 443)
MAPPED = socket.inet_pton(socket.AF_INET6, "::ffff:192.0.2.7") + bytes(16) + struct.pack("!HH", 4711, 443)


def ssl(client: int, verify: int, *names: bytes) -> bytes:
    """The value of type SSL."""
    inner = value(0x21, b"TLSv1.3") + b"".join(value(0x22, name) for name in names)
    return value(0x20, struct.pack("!BI", client, verify) + inner)


def checked(header: bytes) -> bytes:
    """A header with its checksum."""
    at = header.index(value(0x03, bytes(4))) + 3
    return header[:at] + _crc32c(header).to_bytes(4, "big") + header[at + 4 :]


GOOD = [
    (b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n", ("192.0.2.7", 4711), False, ""),
    (b"PROXY TCP6 ::1 ::1 60288 4432\r\n", ("::1", 60288), False, ""),
    (b"PROXY TCP6 ::ffff:127.0.0.1 ::ffff:127.0.0.1 36884 4432\r\n", ("127.0.0.1", 36884), False, ""),
    (b"PROXY UNKNOWN\r\n", None, False, ""),
    (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None, False, ""),
    (binary(body=TCP4), ("192.0.2.7", 4711), False, ""),
    (binary(family=0x21, body=TCP6), ("2001:db8::7", 4711), False, ""),
    (binary(family=0x21, body=MAPPED), ("192.0.2.7", 4711), False, ""),
    (binary(command=0x20, family=0, body=b""), None, True, ""),
    (binary(command=0x20, family=0, body=ssl(0, 0)), None, True, ""),
    (binary(family=0, body=b""), None, False, ""),
    (binary(body=TCP4 + ssl(0x07, 0, b"shop")), ("192.0.2.7", 4711), False, "shop"),
    (binary(body=TCP4 + ssl(0x05, 0, b"shop", b"second")), ("192.0.2.7", 4711), False, "shop"),
    (binary(body=TCP4 + ssl(0x03, 0, "grün".encode())), ("192.0.2.7", 4711), False, "grün"),
    (binary(body=TCP4 + ssl(0x07, 18, b"admin")), ("192.0.2.7", 4711), False, ""),  # self-signed
    (binary(body=TCP4 + ssl(0x01, 0, b"admin")), ("192.0.2.7", 4711), False, ""),  # TLS without a certificate
    (binary(body=TCP4 + ssl(0x00, 0, b"admin")), ("192.0.2.7", 4711), False, ""),
    (binary(body=TCP4 + ssl(0x07, 0)), ("192.0.2.7", 4711), False, ""),
    (checked(binary(body=TCP4 + value(0x03, bytes(4)) + ssl(7, 0, b"shop"))), ("192.0.2.7", 4711), False, "shop"),
    (binary(body=TCP4 + value(0x05, b"") + value(0xEE, b"?")), ("192.0.2.7", 4711), False, ""),
]


@pytest.mark.parametrize(("data", "peer", "is_local", "cert"), GOOD, ids=range(len(GOOD)))
def test_a_header_tells_who_is_behind(data: bytes, peer: object, is_local: bool, cert: str) -> None:
    """A name counts only where the certificate was verified; what follows is left alone."""
    wanted = Header(len(data), peer, is_local, cert)
    assert read_header(data) == read_header(data + b"\x94\0more") == wanted
    assert all(read_header(data[:length]) is None for length in range(1, len(data)))


@pytest.mark.parametrize(
    "data",
    [
        b"\x94\0\1\xa3sum\x90",
        b"GET / HTTP/1.1\r\n",
        b"PROXY TCP4 a b 1 2\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 99999999\r\n".replace(b"4711", b"99999"),
        b"PROXY TCP5 192.0.2.7 192.0.2.1 4711 443\r\n",
        b"PROXY TCP4\r\n",
        b"PROXY " + b"x" * 200,
        binary(command=0x22),
        binary(command=0x31, body=TCP4),
        binary(body=TCP4[:11]),
        binary(body=TCP4 + b"\x20\0"),
        binary(body=TCP4 + b"\x20\0\xff1"),
        binary(body=TCP4 + value(0x03, b"\1\2\3\4")),
        SIGNATURE + b"\x21\x11\xff\xff",
    ],
    ids=range(14),
)
def test_what_is_no_header_is_refused(data: bytes) -> None:
    """Another protocol, other addresses, values that are cut off, a wrong checksum, too many bytes."""
    with pytest.raises(ProtocolError):
        read_header(data)


def test_the_checksum_is_that_of_the_rfc() -> None:
    """RFC 3720, B.4: 32 bytes of zeros."""
    assert _crc32c(bytes(32)) == 0x8A9136AA
