"""[metrics] and [web]: their faults, alone and beside other sections, and which addresses they share."""

from __future__ import annotations

from pathlib import Path

import pytest

from rpccluster.address import TCPAddress
from rpccluster.config import Configuration, Machine, Sources, load
from rpccluster.config.sections.web import Sites
from rpccluster.errors import ConfigError

CLUSTER = "[cluster]\nservice = rpccluster.demo:Demo\nbind = tcp://127.0.0.1:1\n"


def read(folder: Path, text: str) -> Configuration:
    """The configuration of a file with ``text`` behind the section of the cluster."""
    path = folder / "c.ini"
    path.write_text(CLUSTER + text)
    return load(Sources(str(path)), Machine())


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[metrics]\n", "bind"),
        ("[web]\nbind =\n", "bind: found nothing, expected"),
        ("[web]\nbind = fd://\n", "only workers take what systemd passes"),
        ("[web]\nbind = tcp+proxy://127.0.0.1:2\n", "only workers take proxies"),
        ("[web]\nbind = tcp://127.0.0.1:1\n", "beside tcp://127.0.0.1:1 of [cluster]"),
        ("[metrics]\nbind = tcp://0.0.0.0:2\n[web]\nbind = tcp://127.0.0.1:2\n", "beside tcp://0.0.0.0:2 of [metrics]"),
        ("[web]\nbind = tcp://127.0.0.1:2\nhosts = a:80\n", "hosts: found 'a:80', expected names of hosts"),
        ("[web]\nbind = tcp://127.0.0.1:2\nhosts = http://a\n", "hosts: found"),
        ("[web]\nbind = tcp://127.0.0.1:2\nhosts = *\n", "hosts: found"),
        ("[web]\nbind = tcp://127.0.0.1:2\nactions = true\n", "actions: found true without token_file"),
        ("[web]\nbind = tcp://127.0.0.1:2\ntoken_file = /nowhere\n", "token_file: found '/nowhere'"),
        ("[web]\nbind = tcp://127.0.0.1:2\nhost = a\n", "did you mean hosts"),
        ("[plugin:other]\ncommand = true\nafter = webb\n[web]\nbind = tcp://127.0.0.1:2\n", "webb"),
    ],
)
def test_a_fault_is_told(tmp_path: Path, text: str, fault: str) -> None:
    """With its key, and what was expected."""
    with pytest.raises(ConfigError, match="found") as caught:
        read(tmp_path, text)
    assert fault in str(caught.value)


def test_a_token_file_that_others_may_read_is_a_fault(tmp_path: Path) -> None:
    """One of mode 0600 is read with the configuration; its tokens are never shown."""
    tokens = tmp_path / "tokens"
    tokens.write_text("alice 0123456789abcdef\n")
    text = f"[web]\nbind = tcp://127.0.0.1:2\nactions = true\ntoken_file = {tokens}\n"
    tokens.chmod(0o644)
    with pytest.raises(ConfigError, match="expected mode 0600"):
        read(tmp_path, text)
    tokens.chmod(0o600)
    options = read(tmp_path, text).others["web"]
    assert options.token_file.keys == (("alice", b"0123456789abcdef"),)
    assert "0123456789abcdef" not in repr(options)


def test_both_sections_may_share_an_address(tmp_path: Path) -> None:
    """It is one listener; the process knows each by its place."""
    configuration = read(tmp_path, "[web]\nbind = tcp://[::1]:3, tcp://[::1]:2\n[metrics]\nbind = tcp://[::1]:2\n")
    sites = Sites.of(configuration.others)
    assert sites.addresses() == [TCPAddress("::1", 2), TCPAddress("::1", 3)]
    assert sites.by_header() == {"metrics": (TCPAddress("::1", 2),), "web": (TCPAddress("::1", 3),)}
    assert sites.web.hosts == ()


def test_hosts_are_read_in_lower_case(tmp_path: Path) -> None:
    """Names, and IPv6 addresses in brackets."""
    options = read(tmp_path, "[web]\nbind = tcp://127.0.0.1:2\nhosts = Status.Example.org, [2001:DB8::1], 10.0.0.1\n")
    assert options.others["web"].hosts == ("status.example.org", "[2001:db8::1]", "10.0.0.1")
