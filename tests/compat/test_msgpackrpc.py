"""The names of msgpack-rpc-python over this project's client: its README's example, its own tests, and its manners.

The server is the real one, in an environment of its own.
"""

from __future__ import annotations

import importlib.util
import pickle
import socket
import subprocess
import sys
import threading
import types
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rpccluster.compat.msgpackrpc as msgpackrpc
from rpccluster.compat.msgpackrpc import error
from rpccluster.errors import RPCClusterError


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture
def client(port: int) -> Iterator[msgpackrpc.Client]:
    client = msgpackrpc.Client(msgpackrpc.Address("localhost", port), unpack_encoding="utf-8")
    yield client
    client.close()


@pytest.fixture
def their_tests(old_tests: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The client half of the library's own test case, with our names in the place of its own."""
    helper = types.ModuleType("helper")
    helper.unused_port = unused_port  # type: ignore[attr-defined]
    for name, module in {"helper": helper, "msgpackrpc": msgpackrpc}.items():
        monkeypatch.setitem(sys.modules, name, module)
    spec = importlib.util.spec_from_file_location("their_tests", old_tests)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    class ClientHalf(module.TestMessagePackRPC):  # type: ignore[name-defined, misc]
        ENABLE_TIMEOUT_TEST = True

        def setup_env(self) -> msgpackrpc.Client:
            self._address = msgpackrpc.Address("localhost", port)
            self._client = msgpackrpc.Client(self._address, unpack_encoding="utf-8")
            return self._client

        def tearDown(self) -> None:
            self._client.close()

    module.TestMessagePackRPC.ENABLE_TIMEOUT_TEST = True
    return ClientHalf


@pytest.mark.parametrize(
    "name",
    [
        "test_call",
        "test_call_userdefined_arg",
        "test_call_async",
        "test_notify",
        "test_raise_error",
        "test_unknown_method",
        "test_async_result",
        "test_connect_failed",
        "test_timeout",
    ],
)
def test_their_own_tests(their_tests: type[unittest.TestCase], name: str) -> None:
    """The client half of the library's own tests runs unchanged but for the import."""
    result = unittest.TestResult()
    their_tests(name).run(result)
    assert result.testsRun == 1
    assert result.errors + result.failures == []


def test_readme(port: int) -> None:
    """The client example of the library's README runs unchanged but for the import."""
    client = msgpackrpc.Client(msgpackrpc.Address("localhost", port))
    result = client.call("sum", 1, 2)  # = > 3
    assert result == 3
    client.close()


def test_bytes_without_unpack_encoding(port: int) -> None:
    """Without unpack_encoding strings come as bytes, error messages and keys, too."""
    with msgpackrpc.Client.open(msgpackrpc.Address("localhost", port)) as client:
        assert client.call("hello") == b"world"
        assert client.call("echo", {"a": ["b", b"c"]}) == {b"a": [b"b", b"c"]}
        with pytest.raises(error.RPCError) as info:
            client.call("raise_error")
        assert info.value.args == (b"error",)
        with pytest.raises(error.NoMethodError) as info:
            client.call("unknown")
        assert info.value.args == (b"'unknown' method not found",)
    with pytest.raises(error.TransportError):
        client.call("hello")


@pytest.mark.parametrize("encoding", ["utf-8", "UTF8", "latin-1", "cp1252"])
def test_encodings(port: int, encoding: str) -> None:
    """Strings go out in pack_encoding, and come back in unpack_encoding, wherever they stand in a value."""
    address = msgpackrpc.Address("localhost", port)
    client = msgpackrpc.Client(address, pack_encoding=encoding, unpack_encoding=encoding)
    assert client.call("echo", ["é", {"é": ("é", 1, None)}]) == ["é", {"é": ["é", 1, None]}]
    client.close()
    raw = msgpackrpc.Client(address, pack_encoding=encoding)
    assert raw.call("echo", "é") == "é".encode(encoding)
    raw.close()


def test_options(port: int) -> None:
    """Every option of the old constructor is taken, by name and in its order."""
    address = msgpackrpc.Address("localhost", port)
    client = msgpackrpc.Client(address, 5, None, None, 3, "utf-8", "utf-8")
    assert client.address is address
    assert address.unpack() == ("localhost", port)
    assert (address.host, address.port) == ("localhost", port)
    assert client.call("hello") == "world"
    client.close()
    client = msgpackrpc.Client(
        address, timeout=0, loop=object(), reconnect_limit=1, pack_encoding="utf-8", unpack_encoding="utf-8"
    )
    assert client.call(b"hello") == "world"
    client.close()


def test_future(client: msgpackrpc.Client) -> None:
    """A future has join, get, result and error, as they were."""
    good, bad = client.call_async("sum", 1, 2), client.call_async("raise_error")
    good.join()
    bad.join()
    assert (good.result, good.error, good.get()) == (3, None, 3)
    assert (bad.result, bad.error) == (None, "error")
    with pytest.raises(error.RPCError) as info:
        bad.get()
    assert info.value.args == ("error",)
    assert client.call_async("nil").get() is None


def test_callbacks_and_handlers(client: msgpackrpc.Client) -> None:
    """A callback gets the future, before join returns; handlers get what get would return or raise."""
    seen: list[object] = []
    future = client.call_async("sum", 1, 2)
    future.attach_callback(lambda future: seen.append(future.result))
    future.join()
    assert seen == [3]
    future.attach_callback(lambda future: seen.append("late"))
    assert seen == [3, "late"]
    future.attach_result_handler(lambda result: seen.append(("result", result)))
    assert future.get() is None
    bad = client.call_async("raise_error")
    bad.attach_error_handler(lambda problem: seen.append(("error", problem)))
    assert bad.get() is None
    assert seen[2:] == [("result", 3), ("error", "error")]


def test_callback_without_join(client: msgpackrpc.Client) -> None:
    """A callback comes although nobody joins."""
    called = threading.Event()
    client.call_async("sum", 1, 2).attach_callback(lambda _: called.set())
    assert called.wait(10)


def test_future_of_no_server() -> None:
    """Without a server a future has a transport error, and so have calls and notifications."""
    client = msgpackrpc.Client(msgpackrpc.Address("localhost", unused_port()), reconnect_limit=2)
    future = client.call_async("hello")
    future.join()
    assert isinstance(future.error, error.TransportError)
    for call in (client.call, client.notify):
        with pytest.raises(error.TransportError):
            call("hello")


def test_timeout_of_a_future(port: int) -> None:
    """A future ends at the client's timeout."""
    client = msgpackrpc.Client(msgpackrpc.Address("localhost", port), timeout=0.2)
    future = client.call_async("long_exec")
    with pytest.raises(error.TimeoutError):
        future.get()
    assert isinstance(future.error, error.TimeoutError)
    client.close()


def test_lost_connection() -> None:
    """A connection that ends under a call is a transport error."""
    listener = socket.create_server(("127.0.0.1", 0))

    def close_the_first() -> None:
        sock = listener.accept()[0]
        data = b""
        while b"hello" not in data:  # the connection's first request comes before
            data += sock.recv(100)
        sock.close()

    thread = threading.Thread(target=close_the_first)
    thread.start()
    client = msgpackrpc.Client(msgpackrpc.Address("127.0.0.1", listener.getsockname()[1]))
    with pytest.raises(error.TransportError):
        client.call("hello")
    thread.join()
    listener.close()


def test_unpackable(client: msgpackrpc.Client) -> None:
    """A value that has no to_msgpack raises what it raised there, and the connection stays good."""
    with pytest.raises(AttributeError):
        client.call("echo", object())
    assert client.call("hello") == "world"


def test_errors() -> None:
    """The tree of errors is the old one, below this project's root, and travels by pickle."""
    assert issubclass(error.RPCError, RPCClusterError)
    for kind in (error.TimeoutError, error.TransportError, error.CallError):
        assert kind.__bases__ == (error.RPCError,)
    for kind in (error.NoMethodError, error.ArgumentError):
        assert kind.__bases__ == (error.CallError,)
    again = pickle.loads(pickle.dumps(error.NoMethodError("x")))
    assert (type(again), again.args, again.code) == (error.NoMethodError, ("x",), ".CallError.NoMethodError")
    assert error.RPCError.from_msgpack("x").to_msgpack() == ["x"]
    assert msgpackrpc.error is error


def test_its_own_client_as_a_second_opinion(old_library: str, port: int) -> None:
    """What our client says and returns is what theirs does: the same calls, one by one."""
    script = f"""
import msgpackrpc
client = msgpackrpc.Client(msgpackrpc.Address("127.0.0.1", {port}))
print([client.call("echo", value) for value in VALUES])
""".replace("VALUES", repr(VALUES))
    theirs = subprocess.run([old_library, "-c", script], stdout=subprocess.PIPE, timeout=60, check=True).stdout
    client = msgpackrpc.Client(msgpackrpc.Address("127.0.0.1", port))
    ours = [client.call("echo", value) for value in VALUES]
    client.close()
    assert repr(ours) == theirs.decode().strip()


VALUES: list[object] = ["é", b"\xff", 1, -1, 2**63, 1.5, None, True, [], [1, [2]], (3,), {}, {"a": 1}, {1: "x"}]
