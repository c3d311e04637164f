"""Foreign code that the client runs, or that runs in the middle of it: callbacks, packers, finalizers, signal handlers.

It harms its own call alone, and nothing ever waits for its own thread.
"""

from __future__ import annotations

import concurrent.futures
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from rpccluster.client import Client, Pool
from rpccluster.client.sync.calling import Calling
from rpccluster.compat import msgpackrpc
from rpccluster.errors import CallTimeout, ConnectFailed, Lost, NotSent

from ..servers import Server


class Stop(BaseException):
    """As gevent's, and others': no Exception."""


@pytest.fixture(params=[Client, Pool])
def face(request: pytest.FixtureRequest, server: Server) -> Iterator[Calling]:
    """A client or a pool of one connection."""
    face = Client(server.address) if request.param is Client else Pool([server.address], connections=1)
    with face:
        yield face


def raising(error: type[BaseException]) -> Callable[[object], None]:
    def callback(_: object) -> None:
        raise error("a callback's")

    return callback


def in_thread(work: Callable[[], Any], seconds: float = 10) -> Any:
    """What ``work`` returns in a thread of its own; fail if it does not end."""
    box: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def run() -> None:
        try:
            box.set_result(work())
        except BaseException as error:
            box.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return box.result(seconds)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, Stop, ValueError])
def test_a_callback_that_raises(face: Calling, error: type[BaseException]) -> None:
    """Whatever a callback raises, the future's other callbacks run and the connection's other futures end."""
    called = threading.Event()
    first = face.call_async("linger", 0.02, "first")
    first.add_done_callback(raising(error))
    first.add_done_callback(lambda _: called.set())
    late = face.call_async("linger", 0.2, "late")
    never = face.call_async("sleep", 60, timeout=0.3)
    assert first.result(5) == "first"
    assert called.wait(5)
    assert late.result(5) == "late"
    assert isinstance(never.exception(5), CallTimeout)
    assert face.call_async("echo", "next").result(5) == "next"
    assert in_thread(lambda: face.call("echo", "last")) == "last"


def test_callbacks_that_raise_at_the_end_of_the_connection(face: Calling, server: Server) -> None:
    """When many end at once each is told, though the callbacks of all raise."""
    face.call("echo", "connected")
    futures = [face.call_async("sleep", 60) for _ in range(20)]
    for future in futures:
        future.add_done_callback(raising(SystemExit))
    face.call("echo", "the server has them")
    server.cut()
    assert all(isinstance(future.exception(5), Lost) for future in futures)
    assert face.call_async("echo", "next").result(5) == "next"


def test_a_cancelled_future_s_callbacks(face: Calling) -> None:
    """They run in the thread that cancels; what ends a thread ends that one, when all have been called."""
    future = face.call_async("sleep", 60)
    called = threading.Event()
    future.add_done_callback(raising(KeyboardInterrupt))
    future.add_done_callback(lambda _: called.set())
    with pytest.raises(KeyboardInterrupt):
        future.cancel()
    assert called.is_set()
    assert face.call("echo", "next") == "next"


class Sly:
    """Packs itself, as msgpack-rpc-python lets objects do, and does something more."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act

    def to_msgpack(self) -> object:
        self._act()
        return "sly"


@pytest.fixture
def old_client(server: Server) -> Iterator[msgpackrpc.Client]:
    """A client by the old library's names."""
    client = msgpackrpc.Client(msgpackrpc.Address(*server.name), unpack_encoding="utf-8")
    yield client
    client.close()


def test_a_packer_that_raises(old_client: msgpackrpc.Client) -> None:
    """What an object raises when it packs itself is that call's alone."""
    pending = old_client.call_async("linger", 0.1, "pending")
    for call in (old_client.call, old_client.call_async, old_client.notify):
        with pytest.raises(Stop):
            in_thread(lambda call=call: call("echo", Sly(lambda: raising(Stop)(None))))
    assert in_thread(lambda: old_client.call("echo", "next")) == "next"
    assert in_thread(pending.get) == "pending"


def test_a_packer_that_calls(old_client: msgpackrpc.Client) -> None:
    """An object that calls the same client while it is packed is refused at once; the call goes on."""
    refused: list[Exception] = []

    def act() -> None:
        for call in (old_client.call, old_client.notify):
            try:
                call("echo", "inner")
            except msgpackrpc.error.TransportError as error:
                refused.append(error)
        refused.append(old_client.call_async("echo", "inner").error)

    assert old_client.call("echo", "connected") == "connected"
    assert in_thread(lambda: old_client.call("echo", Sly(act))) == "sly"
    assert in_thread(lambda: old_client.call_async("echo", Sly(act)).get()) == "sly"
    assert len(refused) == 6
    assert all("finalizer" in str(error) for error in refused)


def _batch(client: Client) -> None:
    with client.batch() as batch:
        batch.call("echo", "batch")
    batch.results()


NESTED: dict[str, Callable[[Client], object]] = {
    "call": lambda client: client.call("echo", 1),
    "call without limit": lambda client: client.call("echo", 1, timeout=1e9),
    "call_async": lambda client: client.call_async("echo", 1).result(10),
    "notify": lambda client: client.notify("echo", 1),
    "batch": _batch,
}


@pytest.mark.parametrize("kind", NESTED)
def test_a_call_in_the_middle_of_another(client: Client, kind: str) -> None:
    """As a signal handler or a finalizer makes it, wherever its own thread is: refused at once, never a wait."""
    client.call("echo", "connected")
    connection = client._connection
    assert connection is not None

    def within_the_lock() -> None:
        with connection._lock:
            NESTED[kind](client)

    with pytest.raises(NotSent, match="signal handler or a finalizer"):
        in_thread(within_the_lock)
    assert client._connection is connection
    assert in_thread(lambda: client.call("echo", "next")) == "next"
    assert client.pending == 0


def test_a_future_cancelled_and_a_client_closed_in_the_middle(client: Client) -> None:
    """They do not wait for their own thread, either."""
    client.call("echo", "connected")
    pending = [client.call_async("sleep", 60) for _ in range(3)]
    connection = client._connection
    assert connection is not None

    def within_the_lock() -> None:
        with connection._lock:
            assert pending[0].cancel()
            client.close()

    in_thread(within_the_lock)
    assert all(isinstance(future.exception(5), Lost) for future in pending[1:])


def test_a_call_while_its_thread_connects(client: Client) -> None:
    """It is refused at once, too."""

    def within_the_lock() -> None:
        with client._connecting:
            client.call("echo", 1, timeout=1e9)

    with pytest.raises(ConnectFailed, match="finalizer"):
        in_thread(within_the_lock)


INTERRUPTED = """
import faulthandler, gc, itertools, signal, sys, time
from rpccluster.client import Client, Pool
from rpccluster.errors import ConnectFailed, ConnectionLost

address, face, kind = sys.argv[1:]
client = Client(address, timeout=None) if face == "client" else Pool([address], connections=2, timeout=None)
client.call("echo", 0)
outcomes = {"ran": 0, "refused": 0}
futures = []

def batch():
    with client.batch() as batch:
        batch.call("echo", "inner")
    assert batch.results() == ["inner"]

def called():
    assert client.call("echo", "inner") == "inner"

KINDS = {
    "call": called, "batch": batch, "notify": lambda: client.notify("echo", "inner"),
    "call_async": lambda: futures.append(client.call_async("echo", "inner")),
    "cancel": lambda: client.call_async("linger", 0.001).cancel(),
}

def nested(*_):
    try:
        KINDS[kind]()
        outcomes["ran"] += 1
    except (ConnectFailed, ConnectionLost) as error:
        assert "finalizer" in str(error), error
        outcomes["refused"] += 1

class Finalized:
    def __init__(self):
        self.cycle = self
    def __del__(self):
        nested()

def handler(*_):
    nested()
    signal.setitimer(signal.ITIMER_REAL, 0.0007)

faulthandler.dump_traceback_later(15, exit=True)
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.0007)
gc.set_threshold(3, 2, 2)
end = time.monotonic() + 1.2
for number in itertools.count():
    Finalized()
    if number % 4 == 0:
        assert client.call_async("echo", number).result() == number
    elif number % 4 == 1:
        with client.batch() as many:
            many.call("echo", number)
        assert many.results() == [number]
    else:
        assert client.call("echo", number) == number
    if time.monotonic() > end:
        break
signal.signal(signal.SIGALRM, signal.SIG_IGN)  # or a handler that runs now would set the timer anew
signal.setitimer(signal.ITIMER_REAL, 0)
gc.disable()
for future in futures:
    error = future.exception(10)
    assert error is None or "finalizer" in str(error), error
assert client.call("echo", "last") == "last" and sum(outcomes.values()) > 100, outcomes
print("done", outcomes)
"""


@pytest.mark.parametrize("face", ["client", "pool"])
@pytest.mark.parametrize("kind", ["call", "batch", "notify", "call_async", "cancel"])
def test_signal_handlers_and_finalizers_call(server: Server, face: str, kind: str) -> None:
    """A program whose signal handler and whose finalizers use its own client never hangs: they are served or refused.

    Its other calls have their results.
    """
    tests = Path(__file__).parent.parent.parent
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, server.address, face, kind],
        env={**os.environ, "PYTHONPATH": str(tests.parent)},
        stdout=subprocess.PIPE,
        timeout=30,
        check=True,
    )
    assert done.stdout.startswith(b"done")
