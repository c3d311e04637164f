"""The clients and pools of both faces, as the shared test handles them. The server is another process."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from rpccluster import Client, Pool, aio
from rpccluster.compat import msgpackrpc

from .part import SECONDS, Part

__all__ = ["CLIENT_PARTS"]

LONG_SECONDS = 100.0  # that no call takes here
CONNECT_SECONDS = 0.5  # after which a client gives an address up that says nothing

SERVER = """
import sys
from client.servers import serve
with serve() as server:
    print(server.address, flush=True)
    sys.stdin.read()
"""


@functools.lru_cache(maxsize=1)
def answering() -> str:
    """The address of a server that answers, in a process that ends with this one."""
    tests = str(Path(__file__).resolve().parent.parent)
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {tests!r})\n{SERVER}"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    _servers.append(process)
    assert process.stdout is not None
    return process.stdout.readline().strip()


_servers: list[subprocess.Popen[str]] = []  # as long as they are here their stdin is open


class _Face(Part):
    """A client at three addresses: of one that answers, of one that lets no connection succeed, of nobody."""

    takes_time = True
    client: Any = None

    def prepare(self) -> None:
        self.address = answering()
        self.resources = contextlib.ExitStack()
        self.deaf = self.resources.enter_context(_deaf())

    def make_client(self, address: str) -> Any:
        raise NotImplementedError

    def make(self) -> None:
        self.client = self.make_client(self.address)

    def is_stopped(self) -> bool:
        return self.client is None or not self.client.pending

    def clean(self) -> None:
        self.resources.close()

    def failures(self) -> Mapping[str, Callable[[], AbstractContextManager[object]]]:
        return {"nobody listens": self.nobody_listens}

    @contextlib.contextmanager
    def nobody_listens(self) -> Iterator[None]:
        with socket.create_server(("127.0.0.1", 0)) as server:
            address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        answers, self.address = self.address, address
        yield
        self.address = answers


class _Sync(_Face):
    """With a future that nobody has waited for, so that its threads run."""

    is_for_threads = True

    def prepare(self) -> None:
        super().prepare()
        self.callers: list[threading.Thread] = []
        self.futures: list[Future[Any]] = []

    def start(self) -> None:
        assert self.client.call("echo", 5) == 5
        self.futures.append(self.client.call_async("sleep", LONG_SECONDS))

    def begin(self) -> None:
        self.client.close()
        self.client = self.make_client(self.deaf)
        self.futures.append(self.client.call_async("echo", 5))
        self.callers.append(threading.Thread(target=self.call))
        self.callers[-1].start()

    def call(self) -> None:
        with contextlib.suppress(Exception):
            self.client.call("echo", 5)

    def stop(self) -> None:
        if self.client is not None:
            self.client.close()
        with contextlib.suppress(IndexError):  # another thread stops it, too
            while self.futures:
                self.futures.pop().exception(SECONDS)  # it is not left pending

    def end_begun(self) -> None:
        while self.callers:
            self.callers.pop().join(SECONDS)


class AClient(_Sync):
    def make_client(self, address: str) -> Any:
        return Client(address, timeout=LONG_SECONDS, connect_timeout=CONNECT_SECONDS)


class APool(_Sync):
    def make_client(self, address: str) -> Any:
        return Pool([address, address], timeout=LONG_SECONDS, connect_timeout=CONNECT_SECONDS)


class AnOldLibrarysClient(_Sync):
    """By the names of msgpack-rpc-python; what it is made of tells whether calls are pending."""

    def make_client(self, address: str) -> Any:
        host, _, port = address.partition("//")[2].rpartition(":")
        client = msgpackrpc.Client(msgpackrpc.Address(host, int(port)), LONG_SECONDS)
        client._client.connect_timeout = CONNECT_SECONDS
        return _OldLibrarys(client)


class _OldLibrarys:
    def __init__(self, client: Any) -> None:
        self.call, self.close, self._client = client.call, client.close, client

    def call_async(self, method: str, *params: Any) -> Any:
        return self._client._client.call_async(method, *params)

    @property
    def pending(self) -> int:
        return int(self._client._client.pending)


class _Asyncio(_Face):
    def prepare(self) -> None:
        super().prepare()
        self.loop = asyncio.new_event_loop()
        self.tasks: list[asyncio.Task[Any]] = []
        self.turn()

    def turn(self) -> None:
        self.loop.run_until_complete(asyncio.sleep(0.01))

    def start(self) -> None:
        assert self.loop.run_until_complete(self.client.call("echo", 5)) == 5
        self.tasks.append(self.loop.create_task(self.client.call("sleep", LONG_SECONDS)))
        self.turn()

    def begin(self) -> None:
        self.loop.run_until_complete(self.client.close())
        self.client = self.make_client(self.deaf)
        self.tasks += [self.loop.create_task(self.client.call("echo", 5)) for _ in range(2)]
        self.turn()

    def stop(self) -> None:
        if self.client is not None:
            self.loop.run_until_complete(self.client.close())
        if self.tasks:
            done, pending = self.loop.run_until_complete(asyncio.wait(self.tasks, timeout=SECONDS))
            assert not pending
            self.tasks = [task for task in done if task.exception() is None]
            assert not self.tasks

    def clean(self) -> None:
        self.loop.close()
        super().clean()


class AnAsyncioClient(_Asyncio):
    def make_client(self, address: str) -> Any:
        return aio.Client(address, timeout=LONG_SECONDS, connect_timeout=CONNECT_SECONDS)


class AnAsyncioPool(_Asyncio):
    def make_client(self, address: str) -> Any:
        return aio.Pool([address, address], timeout=LONG_SECONDS, connect_timeout=CONNECT_SECONDS)


@contextlib.contextmanager
def _deaf() -> Iterator[str]:
    """An address that lets no connection succeed, and refuses none: its backlog is full."""
    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"


CLIENT_PARTS: list[type[Part]] = [AClient, APool, AnOldLibrarysClient, AnAsyncioClient, AnAsyncioPool]
