"""The control socket: a real Unix socket on the master's loop, and clients good and bad."""

from __future__ import annotations

import os
import random
import resource
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from rpccluster.client import Client
from rpccluster.errors import CallTimeout, NoMethodError, RemoteError, RPCClusterError
from rpccluster.master.control.server import (
    MOST_CLIENTS,
    MOST_WAITING,
    REST_SECONDS,
    SILENT_SECONDS,
    Answer,
    ControlServer,
)
from rpccluster.master.loop import Loop
from rpccluster.master.resources.listeners import open_control_listener
from rpccluster.protocol.codec import pack_notify, pack_request, pack_response


class Served:
    """A control server with a few methods; the test turns its loop."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.loop = Loop()
        self.later: list[Answer] = []
        self.now = 1000.0
        methods = {
            "ping": lambda params, answer: answer(None, "pong"),
            "echo": lambda params, answer: answer(None, params),
            "later": lambda params, answer: self.later.append(answer),
            "fail": lambda params, answer: answer("RuntimeError: no", None),
            "picky": self._picky,
            "broken": self._broken,
            "large": lambda params, answer: answer(None, b"x" * params[0]),
        }
        self.server = ControlServer(self.loop, open_control_listener(path), clock=lambda: self.now)
        self.server.serve(methods)

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
            self.server.turn()

    def wait(self, seconds: float) -> None:
        """Let the made-up clock go on."""
        self.now += seconds
        self.turn()

    def holds(self) -> int:
        """Bytes and messages that wait in the server."""
        return sum(len(client._unsent) for client in self.server.clients)

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


@pytest.fixture(autouse=True)
def every_line(caplog: pytest.LogCaptureFixture) -> None:
    """Is kept."""
    caplog.set_level("INFO")


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
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"Closing the control connection of pid {os.getpid()}: found ")


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


def test_a_client_that_never_reads_is_not_read(served: Served) -> None:
    """One reply waits for it, not all; after a while it is closed, with a line in the log."""
    with served.connect() as sock, served.connect() as good:
        sock.send(b"".join(pack_request(number, "large", [1_000_000]) for number in range(500)))
        served.turn(100)
        assert 0 < served.holds() < 1_100_000
        served.wait(SILENT_SECONDS - 1)
        good.send(pack_request(1, "ping", []))
        assert served.receive(good) == [[1, 1, None, "pong"]]
        served.wait(2)
        assert len(served.server.clients) == 1
        assert served.holds() == 0


def test_a_flood_is_taken_up_one_call_a_turn(served: Served) -> None:
    """So that signals, workers and the other clients are served meanwhile."""
    with served.connect() as flood, served.connect() as good:
        flood.send(b"".join(pack_request(number, "later", []) for number in range(1000)))
        good.send(pack_request(7, "ping", []))
        served.turn(5)
        assert len(served.later) <= 5
        assert served.receive(good) == [[1, 7, None, "pong"]]
        served.turn(1100)
        assert len(served.later) == MOST_WAITING
        replies = served.receive(flood, 1000 - MOST_WAITING)
        assert {error for _, _, error, _ in replies} == {
            f"RuntimeError: {MOST_WAITING} calls of this connection are not answered yet"
        }


@pytest.mark.parametrize("beginning", [b"", b"\x94", pack_request(1, "ping", [])[:-1], pack_notify("x", []) * 3])
def test_a_silent_client_is_closed_at_its_deadline(
    served: Served, beginning: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether it never said a thing, drips a message, or has fallen silent; only whole messages count."""
    with served.connect() as sock:
        sock.send(beginning)
        served.turn(10)
        served.wait(SILENT_SECONDS - 1)
        assert not served.is_closed(sock)
        sock.send(b"\x94" if not beginning else b"")
        served.wait(2)
        assert served.is_closed(sock)
    assert f"Closing the control connection of pid {os.getpid()}: it was silent for 60 seconds" in caplog.text


def test_it_says_when_a_client_will_have_been_silent_for_too_long(served: Served) -> None:
    """The master need not look before; nor at all while nobody is there, or the next word is the master's."""
    assert served.server.wake_at == float("inf")
    with served.connect() as sock:
        served.turn(10)
        assert served.server.wake_at == served.now + SILENT_SECONDS
        sock.send(pack_request(1, "later", []))
        served.turn(10)
        assert served.server.wake_at == float("inf")


def test_whoever_awaits_an_answer_may_be_silent(served: Served) -> None:
    """A reload takes as long as it takes; the deadline begins with the answer."""
    with served.connect() as sock:
        sock.send(pack_request(1, "later", []))
        served.turn()
        served.wait(10 * SILENT_SECONDS)
        served.later[0](None, "done")
        assert served.receive(sock) == [[1, 1, None, "done"]]
        served.wait(SILENT_SECONDS - 1)
        assert not served.is_closed(sock)
        served.wait(2)
        assert served.is_closed(sock)


def test_there_are_only_so_many_clients(served: Served) -> None:
    """For one more the one that has been silent longest goes: nobody is kept out by those that leak connections."""
    socks = []
    for _ in range(MOST_CLIENTS):
        served.now += 0.1
        socks.append(served.connect())
    socks[0].send(pack_request(1, "ping", []))
    assert served.receive(socks[0]) == [[1, 1, None, "pong"]]
    with served.connect() as one_more:
        assert len(served.server.clients) == MOST_CLIENTS
        assert served.is_closed(socks[1])
        assert not served.is_closed(socks[0])
        one_more.setblocking(True)
        one_more.send(pack_request(2, "ping", []))
        assert served.receive(one_more) == [[1, 2, None, "pong"]]
    for each in socks:
        each.close()


def test_those_that_await_an_answer_do_not_go_for_others(served: Served) -> None:
    """If all do, the newcomer is refused; when one is answered the next may come."""
    socks = [served.connect() for _ in range(MOST_CLIENTS)]
    for each in socks:
        each.send(pack_request(1, "later", []))
    served.turn()
    with served.connect() as one_too_many:
        assert served.is_closed(one_too_many)
    served.later[0](None, "done")
    with served.connect() as sock:
        sock.send(pack_request(1, "ping", []))
        assert served.receive(sock) == [[1, 1, None, "pong"]]
    for each in socks:
        each.close()


def test_an_answer_knows_whether_anybody_awaits_it(served: Served) -> None:
    """Those of a client that has gone need not be kept."""
    sock = served.connect()
    sock.send(pack_request(1, "later", []))
    served.turn()
    assert served.later[0].is_awaited
    sock.close()
    served.turn()
    assert not served.later[0].is_awaited


def test_many_faulty_clients_are_one_line_of_the_log(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    """The next one tells of them."""
    for _ in range(50):
        with served.connect() as sock:
            sock.send(b"\xc1")
            served.turn()
    served.now += 60
    with served.connect() as sock:
        sock.send(b"\xc1")
        served.turn()
    assert len(caplog.records) == 2
    assert caplog.records[1].getMessage().endswith(" (and 49 more like this since the last such line)")


def test_without_descriptors_the_listener_rests(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    """A listener that stays readable must not keep the master busy; when there are descriptors again it goes on."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    sock = socket.socket(socket.AF_UNIX)
    spare = os.dup(0)
    os.close(spare)  # the lowest free number: no descriptor may be had at or above it
    resource.setrlimit(resource.RLIMIT_NOFILE, (spare, before[1]))
    try:
        sock.connect(served.path)
        served.turn(10)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert [record.getMessage() for record in caplog.records] == [
        "Cannot accept a connection to the control socket: [Errno 24] Too many open files"
    ]
    with sock:
        sock.send(pack_request(1, "ping", []))
        served.turn(10)
        assert not served.server.clients
        served.wait(REST_SECONDS)
        assert served.receive(sock) == [[1, 1, None, "pong"]]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize(
    ("master", "peer", "is_served"),
    [(0, 0, True), (0, 65534, False), (65534, 0, True), (65534, 65534, True), (65534, 1, False)],
)
def test_only_root_and_the_masters_user_are_served(
    master: int, peer: int, is_served: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever gets past the permissions of the path is known by the kernel's word all the same."""
    with tempfile.TemporaryDirectory(prefix="rpccluster-test-") as folder:
        os.chmod(folder, 0o755)
        served = Served(f"{folder}/control.sock")
        os.chmod(served.path, 0o666)
        os.seteuid(master)
        try:
            assert _connects_as(peer, served) is is_served
        finally:
            os.seteuid(0)
    assert (f"its uid is {peer}, expected the master's or 0" in caplog.text) is not is_served


def _connects_as(uid: int, served: Served) -> bool:
    """Whether a process of that uid gets an answer."""
    pid = os.fork()
    if pid == 0:
        try:
            os.seteuid(0)
            os.setresuid(uid, uid, uid)
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(20)
            sock.connect(served.path)
            sock.send(pack_request(1, "ping", []))
            os._exit(0 if sock.recv(100) else 1)
        except BaseException:
            os._exit(1)
    while True:
        served.loop.turn(0.01)
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.WEXITSTATUS(status) == 0


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
