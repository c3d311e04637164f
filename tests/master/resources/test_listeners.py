"""Listening sockets: opened with the right options and rights, or refused with nothing left behind."""

from __future__ import annotations

import gc
import os
import re
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rpccluster.address import Address, TCPAddress, UnixAddress, parse_address
from rpccluster.config import Options
from rpccluster.errors import StartError
from rpccluster.master.resources.listeners import (
    Listener,
    _check_is_ours,
    apply_options,
    close_listeners,
    open_control_listener,
    open_listeners,
)
from rpccluster.system.processes.identity import Identity

HINT = "; another program listens there: stop it, or choose another address"


class Opened:
    """Opens listeners and closes them after the test."""

    def __init__(self) -> None:
        self.all: list[Listener] = []

    def __call__(
        self, *addresses: str, owner: Identity | None = None, present: list[Listener] | None = None, **options: Any
    ) -> list[Listener]:
        bind = tuple(map(parse_address, addresses))
        found = open_listeners(Options(service="a:b", bind=bind, **options), owner, present or [])
        self.all += found
        return found


@pytest.fixture
def opened() -> Iterator[Opened]:
    """Closed at the end."""
    made = Opened()
    yield made
    close_listeners(made.all, is_last=True)


def connected(address: Address) -> bool:
    """Whether somebody listens there."""
    family, where = (socket.AF_UNIX, address.path) if isinstance(address, UnixAddress) else (
        socket.AF_INET6 if ":" in address.host else socket.AF_INET,
        (address.host, address.port),
    )  # fmt: skip
    with socket.socket(family) as sock:
        try:
            sock.connect(where)
        except OSError:
            return False
    return True


def test_the_kernel_chooses_the_port(opened: Opened) -> None:
    """What is wanted stays as written, what is had can be connected to."""
    (listener,) = opened("tcp://127.0.0.1:0")
    assert listener.wanted == TCPAddress("127.0.0.1", 0)
    assert isinstance(listener.actual, TCPAddress)
    assert listener.actual.port > 0
    assert connected(listener.actual)


def test_ipv6(opened: Opened) -> None:
    """With its brackets in the address shown."""
    (listener,) = opened("tcp://[::1]:0")
    assert str(listener.actual).startswith("tcp://[::1]:")
    assert connected(listener.actual)


def test_a_host_name(opened: Opened) -> None:
    """Resolved, IPv4 first."""
    (listener,) = opened("localhost:0")
    assert listener.socket.family == socket.AF_INET


def test_several_addresses_keep_their_order(opened: Opened, tmp_path: Path) -> None:
    """As `bind` names them, then `unix_socket`."""
    found = opened(f"unix://{tmp_path}/a", "127.0.0.1:0", "[::1]:0", unix_socket=f"{tmp_path}/b")
    assert [type(each.wanted).__name__[:3] for each in found] == ["Uni", "TCP", "TCP", "Uni"]
    assert all(connected(each.actual) for each in found)


def test_sockets_neither_block_nor_leak_into_other_programs(opened: Opened, tmp_path: Path) -> None:
    """Non-blocking, closed on exec."""
    for listener in opened("127.0.0.1:0", f"unix://{tmp_path}/a"):
        assert not listener.socket.getblocking()
        assert not listener.socket.get_inheritable()


def test_tcp_options_are_set(opened: Opened) -> None:
    """Accepted sockets inherit them: no delay, keepalive as configured."""
    (listener,) = opened("127.0.0.1:0", tcp_keepalive=90)

    def option(level: int, name: int) -> int:
        return listener.socket.getsockopt(level, name)

    assert option(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert option(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert option(socket.SOL_SOCKET, socket.SO_REUSEADDR)
    assert option(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 90
    assert option(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 22
    assert option(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == 4
    assert opened("127.0.0.1:0", present=[listener], tcp_keepalive=0) == [listener]
    assert option(socket.SOL_SOCKET, socket.SO_KEEPALIVE)  # a reload that is given up leaves it as it was
    apply_options([listener], Options(service="a:b", tcp_keepalive=0))
    assert not option(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_what_is_there_already_is_kept(opened: Opened, tmp_path: Path) -> None:
    """A reload opens only what is new, and puts all into the new order."""
    kept, dropped = opened("127.0.0.1:0", f"unix://{tmp_path}/a")
    new, again = opened("[::1]:0", "127.0.0.1:0", present=[kept, dropped])
    assert again is kept
    assert new is not dropped
    assert connected(dropped.actual)  # closing it is the caller's affair, once the reload has proved itself


# -- Unix sockets


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666, 0o777])
def test_a_unix_socket_has_its_mode_from_the_first_moment(opened: Opened, tmp_path: Path, mode: int) -> None:
    """Whatever the umask, which stays as it was; folders are made."""
    before = os.umask(0o077)
    try:
        opened(f"unix://{tmp_path}/deep/er/x.sock", unix_socket_mode=mode)
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(tmp_path / "deep/er/x.sock").st_mode) == mode


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_a_unix_socket_belongs_to_the_workers_user(opened: Opened, tmp_path: Path) -> None:
    """So that its mode means something to it."""
    opened(f"unix://{tmp_path}/x", owner=Identity(65534, 65533, "nobody"))
    found = os.stat(tmp_path / "x")
    assert (found.st_uid, found.st_gid) == (65534, 65533)


def test_a_socket_that_nobody_answers_at_is_replaced(opened: Opened, tmp_path: Path) -> None:
    """A kill -9 left it."""
    path = str(tmp_path / "x")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
        dead.listen()
    (listener,) = opened(f"unix://{path}")
    assert connected(listener.actual)


def test_a_socket_that_somebody_answers_at_is_left_alone(opened: Opened, tmp_path: Path) -> None:
    """It is somebody's."""
    path = f"unix://{tmp_path}/x"
    (living,) = opened(path)
    with pytest.raises(StartError, match=re.escape(f"cannot listen at {path}: Address already in use")):
        opened(path)
    assert connected(living.actual)


def test_a_file_that_is_no_socket_is_left_alone(opened: Opened, tmp_path: Path) -> None:
    """However it came there."""
    (tmp_path / "x").write_text("precious")
    with pytest.raises(StartError, match="there is a file that is no socket"):
        opened(f"unix://{tmp_path}/x")
    assert (tmp_path / "x").read_text() == "precious"


def test_the_path_goes_with_the_last_copy(opened: Opened, tmp_path: Path) -> None:
    """A copy that is not the last leaves it to the others; what is no socket any more is nobody's to unlink."""
    one, two = opened(f"unix://{tmp_path}/one", f"unix://{tmp_path}/two")
    one.close(is_last=False)
    assert (tmp_path / "one").exists()
    two.close(is_last=True)
    assert not (tmp_path / "two").exists()
    (tmp_path / "two").write_text("precious")
    two.close(is_last=True)
    assert (tmp_path / "two").read_text() == "precious"


# -- faults


def test_every_fault_is_told_and_nothing_is_left(opened: Opened, tmp_path: Path) -> None:
    """One line each, all at once; what could be opened is closed again, its path gone."""
    (busy,) = opened("127.0.0.1:0")
    (tmp_path / "file").write_text("")
    gc.collect()  # what other tests left is not to go meanwhile
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(StartError) as raised:
        opened(f"unix://{tmp_path}/fine", str(busy.actual), "203.0.113.1:1", f"unix://{tmp_path}/file", "[::1]:0")
    assert str(raised.value).splitlines() == [
        f"cannot listen at {busy.actual}: Address already in use{HINT}",
        "cannot listen at tcp://203.0.113.1:1: Cannot assign requested address; this machine has no such address",
        f"cannot listen at unix://{tmp_path}/file: there is a file that is no socket",
    ]
    assert raised.value.exit_code == 1
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert not (tmp_path / "fine").exists()
    assert connected(busy.actual)


def test_an_unknown_host_is_a_fault(opened: Opened) -> None:
    """With its name."""
    with pytest.raises(StartError, match=r"^cannot listen at tcp://no\.such\.host\.invalid:1: "):
        opened("no.such.host.invalid:1")


def test_a_host_name_that_cannot_be_one_is_a_fault(opened: Opened) -> None:
    """IDNA cannot encode a label of more than 63 characters."""
    with pytest.raises(StartError, match=r"^cannot listen at tcp://xxx"):
        opened("x" * 64 + ":1")


# -- listeners that overlap


@pytest.mark.usefixtures("own_network")
@pytest.mark.parametrize("hosts", [("0.0.0.0", "[::]"), ("[::]", "0.0.0.0"), ("127.0.0.1", "[::]")])
def test_ipv4_and_ipv6_may_have_one_port(opened: Opened, hosts: tuple[str, str]) -> None:
    """An IPv6 listener serves IPv6 alone, whatever the machine's default is."""
    (first,) = opened(f"tcp://{hosts[0]}:0")
    (second,) = opened(f"tcp://{hosts[1]}:{first.actual.port}")
    assert second.actual.port == first.actual.port


@pytest.mark.usefixtures("own_network")
def test_what_listen_refuses_is_a_fault(opened: Opened) -> None:
    """Two addresses of one family and port can be bound, but not listened at; nothing is left."""
    (probe,) = opened("127.0.0.1:0")
    port = probe.actual.port
    probe.close(is_last=True)
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(StartError, match=rf"^cannot listen at tcp://0\.0\.0\.0:{port}: Address already in use{HINT}$"):
        opened(f"tcp://127.0.0.1:{port}", f"tcp://0.0.0.0:{port}")
    assert sorted(os.listdir("/proc/self/fd")) == before


@pytest.mark.usefixtures("own_network")
@pytest.mark.parametrize("hosts", [("0.0.0.0", "127.0.0.1"), ("127.0.0.1", "0.0.0.0"), ("[::]", "[::1]")])
def test_a_listener_that_leaves_is_not_in_the_way(opened: Opened, hosts: tuple[str, str]) -> None:
    """Both listen until the reload is committed, or given up: then the old one is as it was."""
    (old,) = opened(f"tcp://{hosts[0]}:0")
    wanted = f"tcp://{hosts[1]}:{old.actual.port}"
    (new,) = opened(wanted, present=[old])
    assert (new is old, connected(new.actual)) == (False, True)
    new.close(is_last=True)
    assert connected(old.actual)
    with pytest.raises(StartError, match="Address already in use"):
        opened(wanted)  # anybody else's is in the way as ever
    (new,) = opened(wanted, present=[old])
    old.close(is_last=True)
    assert connected(new.actual)


def test_another_name_of_the_same_address_is_the_same_listener(opened: Opened) -> None:
    """Whoever waits in its backlog stays there."""
    (old,) = opened("127.0.0.1:0")
    assert opened(f"localhost:{old.actual.port}", present=[old]) == [old]
    with pytest.raises(StartError):
        opened(f"localhost:{old.actual.port}", "203.0.113.1:1", present=[old])
    assert connected(old.actual)


def test_a_fault_is_told_where_it_was_written(opened: Opened, tmp_path: Path) -> None:
    """By the option that names the address."""
    options = Options(service="a:b", bind=(parse_address("203.0.113.1:1"),), unix_socket="/proc/no/socket")
    with pytest.raises(StartError) as raised:
        open_listeners(options, None, [], lambda key, problem: f"x.ini:3: {key}: {problem}")
    assert [line.rsplit(": ", 1)[0] for line in str(raised.value).splitlines()] == [
        "x.ini:3: bind: cannot listen at tcp://203.0.113.1:1",
        "x.ini:3: unix_socket: cannot listen at unix:///proc/no/socket",
    ]


# -- control socket and inheriting


def test_the_control_socket_is_its_owners_alone(tmp_path: Path) -> None:
    """Mode 0600 in a folder that is made; a busy one is a fault."""
    path = str(tmp_path / "run" / "control.sock")
    listener = open_control_listener(path)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert connected(UnixAddress(path))
    with pytest.raises(StartError, match=re.escape(f"cannot open the control socket {path}: Address already in use")):
        open_control_listener(path)
    listener.close(is_last=True)
    assert not os.path.exists(path)


def test_a_socket_that_others_may_open_is_a_fault(tmp_path: Path) -> None:
    """Wherever a file system does not do as it is told."""
    path = tmp_path / "it"
    path.touch(0o644)
    with pytest.raises(OSError, match=f"found owner {os.geteuid()}, mode 0644, expected owner {os.geteuid()}, mode 06"):
        _check_is_ours(str(path), 0o600)


@pytest.mark.parametrize("address", ["127.0.0.1:0", "[::1]:0", "unix://{}/x"])
def test_an_inherited_listener_is_the_same(opened: Opened, tmp_path: Path, address: str) -> None:
    """Made from a descriptor: its kind, its actual address, closed on the next exec; it blocks nobody."""
    (old,) = opened(address.format(tmp_path))
    descriptor = os.dup(old.socket.fileno())
    os.set_inheritable(descriptor, True)
    new = Listener.inherited(old.wanted, descriptor)
    assert (new.wanted, new.actual) == (old.wanted, old.actual)
    assert new.socket.family == old.socket.family
    assert not os.get_inheritable(descriptor)
    assert not os.get_blocking(descriptor)
    old.close(is_last=False)
    assert connected(new.actual)
    new.close(is_last=True)


def test_what_is_no_socket_cannot_be_inherited() -> None:
    """OSError, which the reader of the environment turns into a fault."""
    with open(os.devnull) as null, pytest.raises(OSError, match="socket"):
        Listener.inherited(TCPAddress("h", 1), null.fileno())
