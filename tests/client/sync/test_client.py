"""The client against servers that behave: results, errors, timeouts, connecting and connecting again."""

from __future__ import annotations

import contextlib
import copy
import random
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import msgpack
import pytest

from rpccluster.client import Client
from rpccluster.client.sync.stream import Stream
from rpccluster.errors import (
    CallTimeout,
    ConnectFailed,
    Lost,
    NoMethodError,
    NotSent,
    RemoteError,
)

from ..servers import Server, answer, reply, requests, serve
from ..settling import settle


def test_call(client: Client) -> None:
    """A call returns the method's result."""
    assert client.call("sum", 1, 2) == 3
    assert client.call("echo", None) is None


@pytest.mark.parametrize(
    "value",
    ["ÿ\udcff", b"\xff", 2**64 - 1, -(2**63), 1.5, [1, [2]], {"a": {1: None}, b"b": True}, "x" * 200_000],
)
def test_types(client: Client, value: object) -> None:
    """Values come back as they went."""
    assert client.call("echo", value) == value


def test_ext(client: Client) -> None:
    """Ext values and timestamps are msgpack's."""
    assert client.call("ext") == msgpack.ExtType(5, b"x")
    assert client.call("echo", msgpack.Timestamp(5, 6)) == msgpack.Timestamp(5, 6)


def test_remote_errors(client: Client) -> None:
    """What the method raised comes with its type and message, and the connection goes on."""
    with pytest.raises(RemoteError) as info:
        client.call("fail", "ValueError: no")
    assert (info.value.type, info.value.message) == ("ValueError", "no")
    with pytest.raises(NoMethodError, match="'nothing' method not found"):
        client.call("nothing")
    assert client.call("sum", 1) == 1


def test_ipv6() -> None:
    """IPv6 addresses work."""
    try:
        with serve(at=("::1", 0)) as server, Client(server.address) as client:
            assert "[::1]" in server.address
            assert client.call("sum", 1, 2) == 3
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")


def test_unix(tmp_path: Path) -> None:
    """Unix addresses work."""
    with serve(at=tmp_path / "s") as server, Client(server.address) as client:
        assert server.address.startswith("unix:///")
        assert client.call("sum", 1, 2) == 3


def test_notify() -> None:
    """A notification arrives, has no msgid, and is not waited for."""
    got: list[object] = []
    arrived = threading.Event()

    def handle(sock: socket.socket) -> None:
        for message in requests(sock):
            got.append(message)
            arrived.set()

    with serve(handle) as server, Client(server.address) as client:
        assert client.notify("log", "x", 1) is None
        assert arrived.wait(10)
        assert got == [[2, "log", ["x", 1]]]


def test_timeout(client: Client) -> None:
    """A call ends at its timeout; the client's own goes for calls that give none."""
    client.call("sum", 1)
    start = time.monotonic()
    with pytest.raises(CallTimeout):
        client.call("sleep", 60, timeout=0.1)
    assert time.monotonic() - start > 0.09
    with Client(str(client.address), timeout=0.05) as hasty, pytest.raises(TimeoutError):
        hasty.call("sleep", 60)


def test_late_replies_are_dropped(client: Client, server: Server) -> None:
    """After a timeout the late reply answers nobody, and the calls that follow get their own."""
    dice = random.Random(4)
    late = 0
    for number in range(1000):
        if dice.random() < 0.2:
            try:
                delay, timeout = 0.02 * dice.random(), 0.015 * dice.random()
                assert client.call("linger", delay, number, timeout=timeout) == number
            except CallTimeout:
                late += 1
        else:
            assert client.call("echo", number) == number
    assert late > 50
    assert server.connections == 1


def test_no_timeout(server: Server) -> None:
    """A timeout of None is none."""
    with Client(server.address, timeout=None, connect_timeout=None) as client:
        assert client.call("linger", 0.05, "x") == "x"


def test_connect_failed() -> None:
    """Without a server a call fails at once, and says so."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    start = time.monotonic()
    with Client(f"127.0.0.1:{port}") as client, pytest.raises(ConnectFailed, match=str(port)) as info:
        client.call("sum", 1)
    assert time.monotonic() - start < 20
    assert isinstance(info.value, ConnectionError)


def test_connect_timeout() -> None:
    """A server whose backlog is full costs connect_timeout, or the call's timeout if that is shorter."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        name = listener.getsockname()
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(name)
            fillers.append(filler)
        try:
            for options in ({"connect_timeout": 0.2}, {"timeout": 0.2}):
                start = time.monotonic()
                with Client(f"127.0.0.1:{name[1]}", **options) as client, pytest.raises(ConnectFailed):
                    client.call("sum", 1)
                assert time.monotonic() - start < 4.5  # 5 is the default of connect_timeout
        finally:
            for filler in fillers:
                filler.close()


def test_reconnects_by_itself(client: Client, server: Server) -> None:
    """A connection that ended while nobody called costs the next call nothing: that is the case of a restart."""
    for count in range(1, 4):
        assert client.call("sum", 1, 2) == 3
        assert server.connections == count
        server.cut()
        settle(client)


def test_reconnects_to_a_restarted_server() -> None:
    """While the server is away calls fail; once it is back they succeed without any action."""
    with serve() as first, Client(first.address) as client:
        name = first.name
        client.call("sum", 1)
    with Client(f"127.0.0.1:{name[1]}") as client:
        with pytest.raises(ConnectFailed):
            client.call("sum", 1)
        with serve(at=name):
            assert client.call("sum", 1, 2) == 3


def test_lost(client: Client, server: Server) -> None:
    """A call under which the connection ends may have run: it is not sent again, and the error says so."""
    with pytest.raises(Lost, match="may have run"):
        client.call("die")
    assert server.connections == 1
    assert client.call("sum", 1) == 1


def test_idempotent() -> None:
    """A call that may run twice is sent again when the connection ends under it."""
    calls: list[int] = []

    def handle(sock: socket.socket) -> None:
        for message in requests(sock):
            calls.append(message[1])
            if len(calls) < 3:
                return
            sock.sendall(reply(message[1], "done"))

    with serve(handle) as server, Client(server.address) as client:
        assert client.call("x", idempotent=True) == "done"
        assert len(calls) == 3


def test_idempotent_does_not_look_before_it_sends(server: Server, client: Client, monkeypatch: Any) -> None:
    """A call that may run twice finds out by itself that the connection has ended, whatever else was to be done."""
    client.call("sum", 1)
    server.cut()
    settle(client)
    looks: list[None] = []
    monkeypatch.setattr(Stream, "_look", lambda connection: looks.append(None) or [])
    assert client.call("sum", 1, 2, idempotent=True) == 3
    assert (server.connections, looks) == (2, [])
    client._connection._look_at = 0.0  # type: ignore[union-attr]
    assert client.call("sum", 1) == 1
    assert looks == [None]


def test_idempotent_without_a_server_was_lost(server: Server) -> None:
    """A call that may have run is said to be lost, even if the server could not be reached after that."""

    def die(sock: socket.socket) -> None:
        for _ in requests(sock):
            other.close()
            return

    with serve(die) as other, Client(other.address) as client, pytest.raises(Lost):
        client.call("x", idempotent=True)


def test_closed(server: Server) -> None:
    """A closed client calls nobody, and says that nothing was sent."""
    client = Client(server.address)
    client.call("sum", 1)
    client.close()
    client.close()
    for call in (client.call, client.notify):
        with pytest.raises(NotSent, match="closed"):
            call("sum", 1)
    with pytest.raises(NotSent, match="closed"):
        client.call_async("sum", 1).result(10)
    assert server.connections == 1


def test_close_ends_calls_of_other_threads(client: Client) -> None:
    """A thread that waits is told when another one closes the client."""
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            client.call("sleep", 30, timeout=30)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    while client.pending < 3:
        time.sleep(0.005)
    client.close()
    for thread in threads:
        thread.join(5)
    assert [type(error) for error in errors] == [Lost] * 3


@pytest.mark.parametrize("has_reader", [False, True])
def test_close_ends_the_call_of_one_who_waits_alone(client: Client, has_reader: bool) -> None:
    """Likewise, with and without the thread of the futures beside him, which is busy with a callback."""
    errors: list[BaseException] = []
    is_busy, is_over = threading.Event(), threading.Event()
    client.call("sum", 1)
    if has_reader:
        client.call_async("linger", 0.1).add_done_callback(lambda _: (is_busy.set(), is_over.wait(20)))
        assert is_busy.wait(10)

    def wait() -> None:
        try:
            client.call("sleep", 30, timeout=30)
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    while not client.pending:
        time.sleep(0.001)
    client.close()
    thread.join(5)
    is_over.set()
    assert [type(error) for error in errors] == [Lost]


def test_pending_and_repr(client: Client) -> None:
    """What a client says of itself."""
    assert (client.pending, client.is_connected) == (0, False)
    client.call("sum", 1)
    assert (client.pending, client.is_connected) == (0, True)
    assert repr(client) == f"<Client {client.address}>"


def test_large_messages_both_ways(client: Client) -> None:
    """Messages larger than the socket's buffers pass, in both directions at once."""
    value = b"x" * 8_000_000
    with client.batch() as batch:
        echoes = [batch.call("echo", value) for _ in range(3)]
    assert all(echo.result() == value for echo in echoes)
    assert client.call("echo", value) == value


def test_proxy_attribute(client: Client) -> None:
    """Methods are attributes of the proxy, with dots and options if need be."""
    assert client.proxy.sum(1, 2, timeout=5) == 3
    with pytest.raises(NoMethodError, match=r"'rpc\.nothing' method not found"):
        client.proxy.rpc.nothing()
    with pytest.raises(AttributeError):
        _ = client.proxy._private
    with pytest.raises(TypeError):
        client.proxy()
    assert copy.copy(client.proxy).sum(1) == 1


def test_a_busy_server_with_another_reader(server: Server) -> None:
    """A request that the kernel does not take at once is pushed out while another thread reads."""
    with Client(server.address) as client:
        waiter = threading.Thread(target=lambda: client.call("linger", 1.0, timeout=20))
        waiter.start()
        while not client.pending:
            time.sleep(0.005)
        value = b"x" * 12_000_000
        assert client.call("echo", value, timeout=20) == value
        client.notify("log", value)
        assert client.call("sum", 1) == 1
        waiter.join(20)


def test_a_server_that_does_not_read() -> None:
    """What the server does not read ends at the timeout; a notification that way, too."""
    stop = threading.Event()
    with serve(lambda sock: stop.wait(20) and None) as server, Client(server.address, timeout=0.2) as client:
        value = b"x" * 16_000_000
        with pytest.raises(CallTimeout):
            client.call("echo", value)
        with pytest.raises(CallTimeout):
            client.notify("log", value)
        with pytest.raises(CallTimeout):
            client.call("sum", 1)
        stop.set()


class Interrupts:
    """Raises KeyboardInterrupt out of a signal handler, once each time it is armed."""

    def __enter__(self) -> Interrupts:
        self._before = signal.signal(signal.SIGUSR1, self._interrupt)
        self._main = threading.get_ident()
        self._timers: list[threading.Thread] = []
        return self

    def __exit__(self, *_: object) -> None:
        for timer in self._timers:
            timer.join()
        signal.signal(signal.SIGUSR1, self._before)

    def arm(self, seconds: float) -> None:
        """Strike after so many seconds."""
        timer = threading.Thread(target=self._strike, args=(seconds,))
        self._timers.append(timer)
        timer.start()

    def _strike(self, seconds: float) -> None:
        time.sleep(seconds)
        signal.pthread_kill(self._main, signal.SIGUSR1)

    def _interrupt(self, *_: object) -> None:
        raise KeyboardInterrupt


def test_interrupted_wait(client: Client) -> None:
    """An exception out of a signal handler, wherever it strikes, leaves the client fit for the next call."""
    client.call("sum", 1)
    with Interrupts() as interrupts:
        for delay in (0.001, 0.003, 0.02):
            with pytest.raises(KeyboardInterrupt):
                interrupts.arm(delay)  # within: it may strike before the call begins
                client.call("sleep", 5, "late")
            assert client.call("echo", delay) == delay


def test_interrupted_anywhere(client: Client) -> None:
    """The same for a thousand interrupts at random."""
    dice = random.Random(7)
    client.call("sum", 1)
    with Interrupts() as interrupts:
        for number in range(1000):
            with contextlib.suppress(KeyboardInterrupt):
                interrupts.arm(dice.uniform(1e-6, 200e-6))
                for count in range(10_000):  # an interrupt in a destructor is lost
                    assert client.call("echo", count) == count
            assert client.call("echo", number, timeout=5) == number


def test_two_servers_answer_alike(server: Server) -> None:
    """`answer` is what the fixture's server does: the tests above do not depend on how it was started."""
    with serve(answer) as other, Client(other.address) as client:
        assert client.call("sum", 1, 2) == 3
