"""The control socket: a real Unix socket on the master's loop, and clients good and bad."""

from __future__ import annotations

import os
import random
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from rpccluster.client import Client
from rpccluster.errors import CallTimeout, NoMethodError, RemoteError, RPCClusterError
from rpccluster.master.control import MOST_CLIENTS, Answer, ControlServer
from rpccluster.master.listeners import open_control_listener
from rpccluster.master.loop import Loop
from rpccluster.protocol.codec import pack_notify, pack_request, pack_response


class Served:
    """A control server with a few methods; the test turns its loop."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.loop = Loop()
        self.later: list[Answer] = []
        self.notified: list[Any] = []
        methods = {
            "ping": lambda params, answer: answer(None, "pong"),
            "echo": lambda params, answer: answer(None, params),
            "later": lambda params, answer: self.later.append(answer),
            "fail": lambda params, answer: answer("RuntimeError: no", None),
            "picky": self._picky,
            "broken": self._broken,
            "large": lambda params, answer: answer(None, b"x" * params[0]),
        }
        self.server = ControlServer(self.loop, open_control_listener(path), methods)

    def _picky(self, params: list[Any], answer: Answer) -> None:
        if params != [1]:
            raise ValueError("expected 1")
        answer(None, True)

    def _broken(self, params: list[Any], answer: Answer) -> None:
        raise KeyError("a fault of ours")

    def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(self.path)
        sock.settimeout(10)
        self.turn()
        return sock

    def turn(self, turns: int = 3) -> None:
        for _ in range(turns):
            self.loop.turn(0)

    def receive(self, sock: socket.socket, count: int = 1) -> list[Any]:
        """The next messages on ``sock``; the loop turns meanwhile."""
        unpacker = msgpack.Unpacker()
        found: list[Any] = []
        sock.setblocking(False)
        for _ in range(100_000):
            try:
                data = sock.recv(65536)
            except BlockingIOError:
                self.loop.turn(0.001)
                continue
            if not data:
                break
            unpacker.feed(data)
            found += list(unpacker)
            if len(found) >= count:
                return found
        raise AssertionError(f"found {len(found)} messages before the end, expected {count}")

    def is_closed(self, sock: socket.socket) -> bool:
        """Whether the server has closed the connection."""
        self.turn()
        sock.setblocking(False)
        try:
            return sock.recv(1) == b""
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """Closed at the end, with all its clients."""
    made = Served(str(tmp_path / "control.sock"))
    yield made
    made.server.close()
    made.server.stop_listening(is_last=True)
    made.loop.close()


def test_requests_are_answered(served: Served) -> None:
    """Several on one connection, in whatever pieces."""
    with served.connect() as sock:
        stream = pack_request(1, "ping", []) + pack_request(2, "echo", [[1, "ä"]])
        for byte in stream:
            sock.send(bytes([byte]))
            served.loop.turn(1)
        assert served.receive(sock, 2) == [[1, 1, None, "pong"], [1, 2, None, [[1, "ä"]]]]


def test_a_reply_may_come_much_later(served: Served) -> None:
    """When the thing is done; others are answered meanwhile."""
    with served.connect() as one, served.connect() as other:
        one.send(pack_request(7, "later", []) + pack_request(8, "ping", []))
        assert served.receive(one) == [[1, 8, None, "pong"]]
        other.send(pack_request(7, "ping", []))
        assert served.receive(other) == [[1, 7, None, "pong"]]
        served.later[0](None, "done")
        assert served.receive(one) == [[1, 7, None, "done"]]


def test_errors_are_replies(served: Served) -> None:
    """A method's own, a wrong parameter, an unknown method."""
    with served.connect() as sock:
        sock.send(pack_request(1, "fail", []) + pack_request(2, "picky", []) + pack_request(3, "nope", []))
        assert served.receive(sock, 3) == [
            [1, 1, "RuntimeError: no", None],
            [1, 2, "ArgumentError: expected 1", None],
            [1, 3, "'nope' method not found", None],
        ]


def test_a_fault_of_a_method_is_a_reply_too(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    """It must never end the master; the traceback goes to the log."""
    with served.connect() as sock:
        sock.send(pack_request(1, "broken", []) + pack_request(2, "ping", []))
        assert served.receive(sock, 2) == [[1, 1, "KeyError: 'a fault of ours'", None], [1, 2, None, "pong"]]
    assert "The control method broken failed" in caplog.text


def test_the_projects_client_can_speak_to_it(served: Served) -> None:
    """As the subcommands do."""
    outcome: list[Any] = []

    def talk() -> None:
        with Client(f"unix://{served.path}", timeout=10) as client:
            outcome.append(client.call("echo", 1, 2))
            for method in ("nope", "fail"):
                try:
                    client.call(method)
                except RPCClusterError as error:
                    outcome.append(error)
            try:
                client.call("later", timeout=0.05)
            except CallTimeout as error:
                outcome.append(error)

    thread = threading.Thread(target=talk)
    thread.start()
    for _ in range(10_000):
        if not thread.is_alive():
            break
        served.loop.turn(0.01)
    thread.join()
    assert outcome[0] == [1, 2]
    assert [type(error) for error in outcome[1:]] == [NoMethodError, RemoteError, CallTimeout]


def test_notifications_and_responses_are_not_answered(served: Served) -> None:
    """There is nobody who would wait for it."""
    with served.connect() as sock:
        sock.send(pack_notify("later", []) + pack_response(5, None, 1) + pack_request(6, "ping", []))
        assert served.receive(sock) == [[1, 6, None, "pong"]]
    assert served.later == []


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xc1",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x93\x00\x01\xa1x",
        b"\x90",
        b"\x94\x00\x01\xa1x\xdd\xff\xff\xff\xff",
        b"\x91" * 60_000,
        pack_request(1, "echo", [b"x" * 70_000]),
    ],
    ids=lambda data: repr(data[:8]),
)
def test_garbage_ends_its_own_connection_alone(
    served: Served, garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """With one line in the log; the others are served on."""
    caplog.set_level("INFO")
    with served.connect() as bad, served.connect() as good:
        bad.setblocking(False)
        while garbage:
            try:
                garbage = garbage[bad.send(garbage) :]
            except BlockingIOError:
                pass
            except (BrokenPipeError, ConnectionResetError):
                break
            served.turn()
        assert served.is_closed(bad)
        good.send(pack_request(1, "ping", []))
        assert served.receive(good) == [[1, 1, None, "pong"]]
    assert [record.getMessage()[:44] for record in caplog.records] == ["Closing a connection to the control socket: "]


def test_random_bytes_harm_nobody(served: Served) -> None:
    """A hundred connections of noise, and one that is served all the time."""
    noise = random.Random(20)
    with served.connect() as good:
        for number in range(100):
            with served.connect() as bad:
                bad.send(noise.randbytes(noise.randrange(1, 200)))
                served.turn()
            good.send(pack_request(number, "ping", []))
            assert served.receive(good) == [[1, number, None, "pong"]]


def test_names_from_outside_are_only_echoed(served: Served) -> None:
    """Bytes that are not UTF-8, control characters, an attribute of Python's."""
    for name in (b"\xff\xfe", b"\x1b[2J\n", b"__class__", b""):
        with served.connect() as sock:
            sock.send(b"\x94\x00\x01" + bytes([0xA0 | len(name)]) + name + b"\x90")
            sock.setblocking(False)
            served.turn()
            assert b"'" + name + b"' method not found" in sock.recv(1000)


def test_a_client_that_goes_takes_its_answers_along(served: Served) -> None:
    """The answer to nobody is no error."""
    sock = served.connect()
    sock.send(pack_request(1, "later", []))
    served.turn()
    sock.close()
    served.turn()
    served.later[0](None, "done")
    served.turn()


def test_a_client_that_does_not_read_is_served_when_it_does(served: Served) -> None:
    """The rest of a large reply waits without holding the master up."""
    with served.connect() as sock:
        sock.send(pack_request(1, "large", [4_000_000]))
        served.turn()
        ((_, _, _, result),) = served.receive(sock)
        assert len(result) == 4_000_000
        sock.send(pack_request(2, "ping", []))
        assert served.receive(sock) == [[1, 2, None, "pong"]]


def test_a_client_that_never_reads_is_closed(served: Served) -> None:
    """Before its replies fill the master's memory."""
    with served.connect() as sock:
        sock.setblocking(False)
        for number in range(20):
            try:
                sock.send(pack_request(number, "large", [1_000_000]))
            except (BrokenPipeError, ConnectionResetError):
                break
            served.turn()
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            sock.send(pack_request(99, "ping", []))
            served.turn()
            sock.send(pack_request(99, "ping", []))


def test_there_are_only_so_many_clients(served: Served) -> None:
    """One too many is closed at once; when one goes the next may come."""
    socks = [served.connect() for _ in range(MOST_CLIENTS)]
    with served.connect() as one_too_many:
        assert served.is_closed(one_too_many)
    socks.pop().close()
    served.turn()
    with served.connect() as sock:
        sock.send(pack_request(1, "ping", []))
        assert served.receive(sock) == [[1, 1, None, "pong"]]
    for each in socks:
        each.close()


def test_stopping_to_listen_keeps_those_that_are_there(served: Served) -> None:
    """The path stays if another master has taken it over, and goes with the last."""
    with served.connect() as sock:
        served.server.stop_listening(is_last=False)
        assert os.path.exists(served.path)
        sock.send(pack_request(1, "ping", []))
        assert served.receive(sock) == [[1, 1, None, "pong"]]
        served.server.stop_listening(is_last=True)
        assert not os.path.exists(served.path)


def test_closing_sends_what_is_due_and_ends_all(served: Served) -> None:
    """The answer to `stop` reaches its caller."""
    with served.connect() as sock:
        sock.send(pack_request(1, "later", []))
        served.turn()
        served.later[0](None, "stopped")
        served.server.close()
        assert served.receive(sock) == [[1, 1, None, "stopped"]]
        assert served.is_closed(sock)
