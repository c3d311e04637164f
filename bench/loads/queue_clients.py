"""The clients of queues that are measured, with one face: put, put many, take and end. Used by `queue_load`."""

from __future__ import annotations

import time
from multiprocessing.managers import BaseManager, BaseProxy, Token
from pathlib import Path
from typing import Any

from bench.servers.queue_server import AUTHKEY

__all__ = ["CLIENTS", "MODULES", "VALUE"]

VALUE = b"x" * 100
WAIT = 0.5  # seconds, for an item


class RPCCluster:
    """`rpccluster.Queue`; the ack travels with the next get."""

    def __init__(self, address: str) -> None:
        from rpccluster import Queue

        self._queue = Queue(address, "bench")
        self._held: list[Any] = []
        self.put = self._queue.put

    def put_many(self, values: list[bytes]) -> None:
        """Put all."""
        self._queue.put_many(values)

    def take(self, count: int) -> int:
        """Take at most ``count`` items, and end those that were taken before. Returns how many were taken."""
        self._held = self._queue.get_many(count, WAIT, ack=self._held)
        return len(self._held)


class Managers:
    """A proxy of `multiprocessing.managers`."""

    def __init__(self, address: str) -> None:
        class Manager(BaseManager):
            """Connects to the server."""

        class Proxy(BaseProxy):
            """A queue's proxy, as `AutoProxy` makes it."""

            _exposed_ = ("put", "get", "task_done")

        token = Token("JoinableQueue", f"{address}/socket", Path(f"{address}/token").read_text())
        proxy = Proxy(token, "pickle", authkey=AUTHKEY, manager=None, exposed=Proxy._exposed_)
        self._call = proxy._callmethod

    def put(self, value: bytes) -> None:
        """Put one item."""
        self._call("put", (value,))

    def put_many(self, values: list[bytes]) -> None:
        """Put one after another: there is no other way."""
        for value in values:
            self._call("put", (value,))

    def take(self, count: int) -> int:
        """Take one item, and say that it is done."""
        self._call("get", (True, WAIT))
        self._call("task_done")
        return 1


class RedisStreams:
    """A stream and its consumer group, by redis-py."""

    _number = 0

    def __init__(self, address: str) -> None:
        import redis

        self._redis = redis.Redis(port=int(address))
        try:
            self._redis.xgroup_create("bench", "all", "0", mkstream=True)
        except redis.ResponseError:  # another process has made it
            pass
        self._name = str(time.perf_counter_ns())

    def put(self, value: bytes) -> None:
        """Put one item."""
        self._redis.xadd("bench", {"v": value})

    def put_many(self, values: list[bytes]) -> None:
        """Put all, in one pipeline."""
        with self._redis.pipeline(transaction=False) as pipe:
            for value in values:
                pipe.xadd("bench", {"v": value})
            pipe.execute()

    def take(self, count: int) -> int:
        """Take items and ack them; XACK alone would leave them in the stream."""
        found: Any = self._redis.xreadgroup("all", self._name, {"bench": ">"}, count, block=int(WAIT * 1000))
        ids = [id for id, _ in found[0][1]] if found else []
        if ids:
            with self._redis.pipeline(transaction=False) as pipe:
                pipe.xack("bench", "all", *ids)
                pipe.xdel("bench", *ids)
                pipe.execute()
        return len(ids)


class Beanstalkd:
    """greenstalk."""

    def __init__(self, address: str) -> None:
        import greenstalk

        self._client = greenstalk.Client(("127.0.0.1", int(address)), encoding=None)
        self.put = self._client.put

    def put_many(self, values: list[bytes]) -> None:
        """Put one after another: there is no other way."""
        for value in values:
            self._client.put(value)

    def take(self, count: int) -> int:
        """Reserve and delete one job."""
        self._client.delete(self._client.reserve(timeout=1))
        return 1


class LiteQueue:
    """litequeue, synchronous = NORMAL, all processes on one file."""

    def __init__(self, address: str) -> None:
        import litequeue

        self._queue = litequeue.LiteQueue(f"{address}/queue.db")
        self._value = VALUE.decode()

    def put(self, value: bytes) -> None:
        """Put one item."""
        self._queue.put(self._value)

    def put_many(self, values: list[bytes]) -> None:
        """Put all, in one transaction."""
        with self._queue.transaction(mode="IMMEDIATE"):
            for _ in values:
                self._queue.put(self._value)

    def take(self, count: int) -> int:
        """Pop and end one message."""
        message = self._queue.pop()
        if message is None:
            return 0
        self._queue.done(message.message_id)
        return 1


class PersistQueue:
    """persist-queue's queue of acks on SQLite, all processes on one file."""

    def __init__(self, address: str) -> None:
        import persistqueue

        self._queue = persistqueue.SQLiteAckQueue(address, auto_commit=True, multithreading=True)
        self.put = self._queue.put

    def put_many(self, values: list[bytes]) -> None:
        """Put one after another."""
        for value in values:
            self._queue.put(value)

    def take(self, count: int) -> int:
        """Take and ack one item."""
        self._queue.ack(self._queue.get(block=False))
        return 1


CLIENTS: dict[str, Any] = {
    "rpccluster": RPCCluster,
    "managers": Managers,
    "redis streams": RedisStreams,
    "beanstalkd": Beanstalkd,
    "litequeue": LiteQueue,
    "persist-queue": PersistQueue,
}

#: What each client imports.
MODULES: dict[str, tuple[str, ...]] = {
    "rpccluster": ("rpccluster.client.sync.queue", "rpccluster.client.aio.queue"),
    "managers": (),
    "redis streams": ("redis",),
    "beanstalkd": ("greenstalk",),
    "litequeue": ("litequeue",),
    "persist-queue": ("persistqueue",),
}
