"""The sockets that systemd passes: found by name, checked, served, and never closed or unlinked."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from rpccluster.address import PassedAddress, TCPAddress, UnixAddress, parse_bind
from rpccluster.config import Options
from rpccluster.errors import StartError
from rpccluster.master.resources.listeners import Listener, apply_options, close_listeners, open_listeners
from rpccluster.master.resources.passed import warn_of_unnamed
from rpccluster.system import Activation, PassedDescriptor


class Systemd:
    """Holds sockets, and passes copies of them."""

    def __init__(self, folder: Path, at_the_end: ExitStack) -> None:
        self.folder = folder
        self._at_the_end = at_the_end
        self.passed: list[PassedDescriptor] = []

    def passes(self, name: str, family: int, address: object, kind: int = socket.SOCK_STREAM, backlog: int = 5) -> int:
        sock = self._at_the_end.enter_context(socket.socket(family, kind))
        sock.bind(address)  # type: ignore[arg-type]
        if backlog:
            sock.listen(backlog)
        return self.passes_copy(name, sock.fileno())

    def passes_copy(self, name: str, descriptor: int) -> int:
        """Pass a copy, which the master closes with its process: here when the test ends."""
        self.passed.append(PassedDescriptor(name, os.dup(descriptor)))
        self._at_the_end.callback(os.close, self.passed[-1].number)
        return self.passed[-1].number

    def tcp(self, name: str) -> int:
        return self.passes(name, socket.AF_INET, ("127.0.0.1", 0))

    @property
    def activation(self) -> Activation:
        return Activation(tuple(self.passed), reason="")


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    with ExitStack() as at_the_end:
        yield Systemd(tmp_path, at_the_end)


def opened(activation: Activation, *addresses: str, present: list[Listener] | None = None) -> list[Listener]:
    options = Options(service="a:b", bind=tuple(map(parse_bind, addresses)), tcp_keepalive=90)
    return open_listeners(options, None, present or [], activation=activation)


def descriptors(listeners: list[Listener]) -> list[int]:
    return [each.socket.fileno() for each in listeners]


def test_all_are_served_or_those_of_a_name(systemd: Systemd) -> None:
    """In their order; two of one name both count. Their real addresses are shown."""
    web, api, other = systemd.tcp("web"), systemd.tcp("api"), systemd.tcp("web")
    activation = systemd.activation
    found = opened(activation, "fd://")
    assert descriptors(found) == [web, api, other]
    assert all(isinstance(each.actual, TCPAddress) and each.actual.port for each in found)
    close_listeners(found, is_last=True)
    found = opened(activation, "fd://api", "fd://web")
    assert descriptors(found) == [api, web, other]
    assert [str(each.wanted) for each in found] == ["fd://api", "fd://web", "fd://web"]
    close_listeners(found, is_last=True)


def test_they_are_set_as_ours_are(systemd: Systemd) -> None:
    """Not blocking, with our options, also after another process has set it blocking again."""
    systemd.tcp("web")
    (listener,) = opened(systemd.activation, "fd://")
    assert not os.get_blocking(listener.socket.fileno())
    assert listener.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 90
    os.set_blocking(listener.socket.fileno(), True)
    apply_options([listener], Options(service="a:b"))
    assert not os.get_blocking(listener.socket.fileno())
    listener.close(is_last=True)


def test_a_unix_sockets_path_is_systemds(systemd: Systemd) -> None:
    """It is neither unlinked, nor bound again, nor is its mode changed; an abstract one has none."""
    path = f"{systemd.folder}/x.sock"
    systemd.passes("x", socket.AF_UNIX, path)
    systemd.passes("x", socket.AF_UNIX, f"\0rpccluster-test-{os.getpid()}")
    os.chmod(path, 0o640)
    found = opened(systemd.activation, "fd://x")
    assert [each.actual for each in found] == [UnixAddress(path), UnixAddress(f"@rpccluster-test-{os.getpid()}")]
    os.rename(path, f"{path}.other")
    assert all(each.is_there() for each in found)
    os.rename(f"{path}.other", path)
    close_listeners(found, is_last=True)
    assert os.stat(path).st_mode & 0o777 == 0o640
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(path)


def test_a_reload_keeps_drops_and_takes_them_again(systemd: Systemd) -> None:
    """The listener stays the same; one that is dropped stays open, for systemd's callers and a later reload."""
    web, api = systemd.tcp("web"), systemd.tcp("api")
    both = opened(systemd.activation, "fd://")
    (kept,) = opened(systemd.activation, "fd://web", present=both)
    assert kept is both[0]
    both[1].close(is_last=True)
    again = opened(systemd.activation, "fd://", present=[kept])
    assert again[0] is kept
    assert descriptors(again) == [web, api]
    close_listeners(again, is_last=True)


def test_an_address_of_ours_is_not_mixed_up_with_theirs(systemd: Systemd) -> None:
    """To bind it anew is a fault that names what to write, also where the reload leaves systemd's out."""
    systemd.tcp("api")
    web = systemd.tcp("web")
    systemd.passes("x", socket.AF_UNIX, f"{systemd.folder}/x.sock")
    found = opened(systemd.activation, "fd://web", "fd://x")
    for listener, name in zip(found, ("web", "x")):
        told = f"cannot listen at {listener.actual}: Address already in use; systemd passes it: write fd://{name}"
        with pytest.raises(StartError, match=f"^{re.escape(told)}$"):
            opened(systemd.activation, str(listener.actual), present=found)
    close_listeners(found, is_last=True)
    os.fstat(web)


def test_a_name_that_is_not_there_is_a_fault(systemd: Systemd) -> None:
    """With the names that are, and with the key; without any, why there is none."""
    for name in ("web", "api", "web"):
        systemd.tcp(name)
    with pytest.raises(StartError, match=r"^cannot listen at fd://wep: systemd has passed no socket of that name, but "
                       r"web, api$"):  # fmt: skip
        opened(systemd.activation, "fd://wep")
    with pytest.raises(StartError, match=r"^cannot listen at fd://: systemd has passed no socket$"):
        opened(Activation(), "fd://")


@pytest.mark.parametrize("what", ["datagrams", "not listening", "connected", "file", "closed", "netlink"])
def test_other_kinds_are_a_fault(systemd: Systemd, what: str) -> None:
    """What was found, by name and number; nothing is closed that is systemd's."""
    web = systemd.tcp("web")
    if what == "datagrams":
        systemd.passes("it", socket.AF_INET, ("127.0.0.1", 0), socket.SOCK_DGRAM, backlog=0)
        told = "a socket of type SOCK_DGRAM"
    elif what == "not listening":
        systemd.passes("it", socket.AF_INET, ("127.0.0.1", 0), backlog=0)
        told = "a socket that does not listen"
    elif what == "connected":
        one, other = socket.socketpair()
        with one, other:
            systemd.passes_copy("it", one.fileno())
        told = "a socket that does not listen"
    elif what == "netlink":
        systemd.passes("it", socket.AF_NETLINK, (0, 0), socket.SOCK_RAW, backlog=0)
        told = f"a socket of family {int(socket.AF_NETLINK)}"
    elif what == "file":
        with open(os.devnull) as null:
            systemd.passes_copy("it", null.fileno())
        told = "expected a listening socket: Socket operation on non-socket"
    else:
        systemd.passed.append(PassedDescriptor("it", 1_000_000))
        told = "expected a listening socket: Bad file descriptor"
    with pytest.raises(
        StartError, match=f"cannot listen at fd://: found it .descriptor {systemd.passed[-1].number}."
    ) as error:
        opened(systemd.activation, "fd://")
    assert told in str(error.value)
    os.fstat(web)


def test_what_bind_leaves_out_is_logged(systemd: Systemd, caplog: pytest.LogCaptureFixture) -> None:
    """Its callers would wait for ever, and nobody would know."""
    systemd.tcp("web")
    systemd.tcp("api")
    warn_of_unnamed(systemd.activation, (PassedAddress("web"),))
    warn_of_unnamed(systemd.activation, (PassedAddress(""),))
    assert [record.getMessage() for record in caplog.records] == [
        "Nobody accepts at what systemd passes as api: bind has neither fd:// nor fd://api"
    ]
