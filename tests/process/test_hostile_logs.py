"""What comes from outside cannot forge, flood or break a line of the log or the access log."""

from __future__ import annotations

import contextlib
import errno
import re
import socket
from collections.abc import Callable
from pathlib import Path

import msgpack
import pytest
from patience import FULL_SCALE

from rpccluster import RemoteError
from rpccluster.testing import RunningCluster, wait_until

FORGED = "\n[2026-01-01 00:00:00 +0000] [1] [CRITICAL] forged\x1b[2J\r\u2028"
ODD_NAME = "odd" + FORGED + "x" * 1000
SERVICE = f"""
import time
from rpccluster import Service, rpc

ODD = {ODD_NAME!r}

class Odd(Service):
    @rpc(name=ODD)
    def odd(self):
        raise ValueError("y" * 1000 + ODD)

    @rpc(name="hang" + ODD)
    def hang(self):
        while True:
            pass

    def echo(self, value=None):
        return value
"""
STACK = r"Stack \(most recent call first\):"  # what Python dumps of a worker that hangs
LINE = re.compile(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}\] \[\d+\] \[[A-Z]+\] .*|" + STACK)
ACCESS = re.compile(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}\] \[\d+\] (\S+|a Unix socket) .+ [\d.]+ms .+")

Start = Callable[..., RunningCluster]


@pytest.fixture
def running(make_cluster: Start, tmp_path: Path) -> RunningCluster:
    """One worker, an access log, a Unix socket beside the TCP one."""
    path = tmp_path / "it.sock"
    access_log = tmp_path / "access.log"
    made = make_cluster(service="odd:Odd", number_workers=1, timeout=3, unix_socket=path, access_log=access_log)
    made.write_module("odd", SERVICE)
    return made.start()


def assert_in_form(path: Path, form: re.Pattern[str]) -> None:
    """Each line has the contract's form or is indented; all are short and printable."""
    for line in path.read_text().split("\n")[:-1]:
        assert line.startswith("  ") or form.fullmatch(line), line
        assert line.isprintable(), line
        assert len(line) < 1_300, line[:300]


def test_names_and_texts_of_methods(running: RunningCluster) -> None:
    """In the lines for a call that failed, a call that was made, and a call that hangs."""
    access_log = Path(str(running.options["access_log"]))
    with running.client() as client:
        for name in (ODD_NAME, "no such" + FORGED, "z" * 1_000_000):
            with pytest.raises(RemoteError):
                client.call(name)
        client.call("echo", FORGED)
    wait_until(lambda: "echo" in access_log.read_text())
    with running.client() as client:
        client.notify("hang" + ODD_NAME)
        running.wait_log("WORKER TIMEOUT")
    running.wait_ready()
    for path, form in ((running.log, LINE), (access_log, ACCESS)):
        assert_in_form(path, form)
        assert "odd\\n[2026-01-01 00:00:00 +0000] [1] [CRITICAL] forged\\x1b[2J\\r\\u2028xxx" in path.read_text()
        assert "x" * 200 not in path.read_text()
    assert "in hangodd\\n[2026" in running.log_text()
    assert "zzz" not in running.log_text() + access_log.read_text()


def test_addresses_that_their_owners_choose(running: RunningCluster, tmp_path: Path) -> None:
    """A Unix socket may be bound to any path before it connects, or to an abstract name."""
    names = [str(tmp_path / "a\n[x] [y]\x1b[2J"), "\0\n\x1b[2J" + "n" * 50, b"\0\xff\xfe"]
    for name in names:
        for garbage in (b"\xc1", msgpack.packb([0, 1, ODD_NAME, []]), msgpack.packb(["x" * 1000 + FORGED])):
            with socket.socket(socket.AF_UNIX) as sock:
                sock.bind(name)
                sock.settimeout(60)
                sock.connect(str(running.options["unix_socket"]))
                sock.send(garbage)
                with contextlib.suppress(ConnectionResetError):  # what was not read goes with a close
                    assert sock.recv(65536) is not None
            Path(str(names[0])).unlink(missing_ok=True)
    wait_until(lambda: running.log_text().count("Method odd") == len(names))
    running.wait_log("Closing the connection of a Unix socket: found ")
    assert_in_form(running.log, LINE)
    assert_in_form(Path(str(running.options["access_log"])), ACCESS)


def test_garbage_of_every_kind(running: RunningCluster) -> None:
    """However it is rejected; of each kind one line, whoever sends it however often."""
    host, _, port = running.address.partition("//")[2].rpartition(":")
    hostile = [
        b"\xc1",
        FORGED.encode(),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        msgpack.packb(FORGED),
        msgpack.packb({FORGED: FORGED}),
        msgpack.packb([1, 2, FORGED, FORGED]),
        msgpack.packb([0, FORGED, "echo", []]),
        msgpack.packb([2, "echo", FORGED]),
        b"\x91" * 1000,
        b"\xdb\xff\xff\xff\xff" + FORGED.encode(),
        b"\xd8\xff" + bytes(16),
    ]
    for garbage in hostile * 20:
        with socket.create_connection((host, int(port)), timeout=60) as sock:
            try:
                sock.send(garbage)
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(65536):
                    pass
            except OSError as error:
                assert error.errno in (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN)
    with running.client() as client:
        assert client.call("echo", 1) == 1
    assert_in_form(running.log, LINE)
    assert 1 <= running.log_text().count("Closing the connection of 127.0.0.1:") <= (20 if FULL_SCALE else 100)
