"""Addresses: what users may write, what it becomes, and what is refused."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpccluster.address import (
    Address,
    PassedAddress,
    TCPAddress,
    UnixAddress,
    parse_address,
    parse_bind,
    unix_address,
)
from rpccluster.errors import AddressError, RPCClusterError


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("tcp://127.0.0.1:18800", TCPAddress("127.0.0.1", 18800)),
        ("127.0.0.1:18800", TCPAddress("127.0.0.1", 18800)),
        ("localhost:1", TCPAddress("localhost", 1)),
        ("tcp://a-b.example_1:65535", TCPAddress("a-b.example_1", 65535)),
        ("tcp://0.0.0.0:0", TCPAddress("0.0.0.0", 0)),
        ("tcp://[::1]:18800", TCPAddress("::1", 18800)),
        ("[::]:0", TCPAddress("::", 0)),
        ("[fe80::1%eth0]:5", TCPAddress("fe80::1%eth0", 5)),
        ("[::ffff:127.0.0.1]:5", TCPAddress("::ffff:127.0.0.1", 5)),
        ("unix:///run/x.sock", UnixAddress("/run/x.sock")),
        ("unix:///a b:c", UnixAddress("/a b:c")),
        ("  tcp://h:1 \n", TCPAddress("h", 1)),
        ("h:00001", TCPAddress("h", 1)),
    ],
)
def test_every_form_of_the_contract_is_understood(text: str, address: Address) -> None:
    """tcp://HOST:PORT, HOST:PORT, bracketed IPv6 and unix:///path; space around does not count."""
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "tcp://",
        "localhost",
        "localhost:",
        ":80",
        "tcp://:80",
        "h:-1",
        "h:+1",
        "h:1x",
        "h:123456",
        "h:65536",
        "h:٣",
        "::1:80",
        "[::1]",
        "[::1]80",
        "[]:80",
        "a/b:80",
        "a b:80",
        "http://h:80",
        "tcp:h:80",
        "udp://h:80",
        "tcp://h:80/",
        "tcp://h:80\nx",
        "unix:/run/x",
        "unix://run/x",
        "unix:",
        "unix://",
        "unix:///" + "x" * 107,
        "unix:///a\0b",
        "fd://",
        "fd://web",
    ],
)
def test_everything_else_is_refused_with_what_was_found(text: str) -> None:
    """The message says what was found and what was expected; nothing is guessed."""
    with pytest.raises(AddressError, match=r"^found .*, expected ") as raised:
        parse_address(text)
    assert isinstance(raised.value, RPCClusterError)
    assert isinstance(raised.value, ValueError)


def test_a_port_out_of_range_is_named() -> None:
    """The port, the address it stood in, and the range."""
    with pytest.raises(AddressError, match=re.escape("found port 65536 in 'tcp://h:65536', expected 0 to 65535")):
        parse_address("tcp://h:65536")


def test_a_path_may_have_as_many_bytes_as_the_kernel_holds() -> None:
    """107, in bytes and not in characters: unix(7)."""
    assert unix_address("/" + "x" * 106).path == "/" + "x" * 106
    assert unix_address("/" + "ä" * 53).path == "/" + "ä" * 53
    for path in ("/" + "x" * 107, "/" + "ä" * 54):
        with pytest.raises(AddressError, match="expected at most 107 bytes"):
            unix_address(path)


def test_one_that_systemd_passes_is_for_bind_alone() -> None:
    """All of them, or those of a name; a client is told why it cannot connect there."""
    assert parse_bind(" fd:// ") == PassedAddress("")
    assert parse_bind("fd://web-1.socket") == PassedAddress("web-1.socket")
    assert str(parse_bind("fd://web")) == "fd://web"
    assert parse_bind("h:1") == TCPAddress("h", 1)
    with pytest.raises(AddressError, match="fd:// is for bind: there it names what systemd passes"):
        parse_address("fd://web")


@pytest.mark.parametrize(
    "text", ["fd:", "fd:/x", "fd:x", "fd://a:b", "fd://a b", "fd://a,b", "fd://ä", "fd://" + "x" * 256]
)
def test_no_name_of_systemds_is_refused(text: str) -> None:
    """systemd.socket(5), FileDescriptorName: ASCII without control characters and colons."""
    with pytest.raises(AddressError, match=r"^found .*, expected fd:// or fd://NAME"):
        parse_bind(text)


hosts = st.from_regex(r"[A-Za-z0-9._-]{1,40}", fullmatch=True) | st.ip_addresses().map(str)
tcp = st.builds(TCPAddress, hosts, st.integers(0, 65535))
unix = st.builds(UnixAddress, st.from_regex(r"/[A-Za-z0-9 ._/:-]{0,60}[a-z]", fullmatch=True))


@given(tcp | unix)
def test_an_address_written_down_is_read_back(address: Address) -> None:
    """``str`` gives a form that parses to the same address."""
    assert parse_address(str(address)) == address


@given(st.text(max_size=40))
def test_no_text_breaks_the_parser(text: str) -> None:
    """Either an address or an `AddressError`, whatever is written."""
    try:
        address = parse_address(text)
    except AddressError:
        return
    assert parse_address(str(address)) == address


def test_addresses_are_values() -> None:
    """Equal ones are one key, and none can be changed."""
    assert len({parse_address("h:1"), parse_address("tcp://h:1"), parse_address("unix:///h")}) == 2
    with pytest.raises(AttributeError):
        parse_address("h:1").port = 2  # type: ignore[union-attr, misc]
