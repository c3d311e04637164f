"""A keeper in memory, for the tests of its clients: sessions, numbers, leases and parked gets, in one small object.

It answers as docs/queue.md says. What it does with disks, processes and time is tested with the real one. It loses
replies and connections on demand; the items stay, as in a keeper that was killed and started anew.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
from collections.abc import Iterator
from typing import Any

from rpccluster.protocol.codec import make_packer

from .servers import Server, requests, serve

__all__ = ["Keeper", "keeping"]


class Refusal(Exception):
    """The text of an error."""


class Parked:
    """A get that waits."""

    def __init__(self, sock: socket.socket, msgid: int, options: dict[str, Any]) -> None:
        self.sock = sock
        self.msgid = msgid
        self.options = options


class Keeper:
    """One queue, ``jobs``."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.ids = itertools.count(1)
        self.ready: list[list[Any]] = []  # [id, attempt, value]
        self.leased: dict[tuple[int, int], list[Any]] = {}
        self.dead: list[list[Any]] = []
        self.acked: set[tuple[int, int]] = set()
        self.nacked: list[dict[str, Any]] = []
        self.parked: list[Parked] = []
        self.joins: list[tuple[socket.socket, int]] = []
        self.last_put: dict[bytes, tuple[int, Any]] = {}
        self.last_get: dict[bytes, tuple[int, list[Any]]] = {}
        self.seen: list[tuple[str, Any]] = []  # every call
        self.greeted: list[bytes] = []  # sessions that came back
        self.is_full = False
        self.many_are_too_many = False  # several do not fit at once
        self.is_down = 0  # so many calls are answered QueueDown
        self.loses = 0  # so many replies to puts and gets are lost, with their connection
        self.limit = 1 << 24

    # -- the verbs; each returns the answer, or None where it comes later

    def do(self, sock: socket.socket, msgid: int, method: str, params: list[Any]) -> Any:
        if method == "rpc.ping":
            return "pong"
        self.seen.append((method, params))
        if self.is_down:
            self.is_down -= 1
            raise Refusal("QueueDown: the store is away")
        if method == "queue.list":
            return [{"name": "jobs", "max_message_size": self.limit}]
        if params[0] != "jobs":
            raise Refusal(f"NoSuchQueue: {params[0]}")
        verb = getattr(self, "do_" + method.partition(".")[2])
        return verb(sock, msgid, *params[1:])

    def do_put(self, sock: Any, msgid: int, value: Any, options: dict[str, Any]) -> Any:
        return self._put([value], options)[0]

    def do_put_many(self, sock: Any, msgid: int, values: list[Any], options: dict[str, Any]) -> Any:
        if self.many_are_too_many:
            raise Refusal("QueueFull: jobs has no room for all")
        return self._put(values, options)

    def _put(self, values: list[Any], options: dict[str, Any]) -> list[int]:
        number, ids = self.last_put.get(options["session"], (0, []))
        assert options["seq"] >= number, "numbers go up"
        if options["seq"] == number:
            return ids
        if self.is_full:
            raise Refusal("QueueFull: jobs has no room")
        ids = [next(self.ids) for _ in values]
        self.ready.extend([id, 0, value] for id, value in zip(ids, values))
        self.last_put[options["session"]] = options["seq"], ids
        return ids

    def do_get(self, sock: Any, msgid: int, options: dict[str, Any]) -> Any:
        session, number = options["session"], options.get("seq")
        if options.get("n") == 0:
            self.greeted.append(session)
            return []
        for parked in [parked for parked in self.parked if parked.options["session"] == session]:
            self.parked.remove(parked)  # a repeat takes its place
        last, items = self.last_get.get(session, (0, []))
        assert number >= last, "numbers go up"
        if number == last:
            return [item for item in items if (item[0], item[1]) in self.leased]
        lost = self._ack(options.get("ack", []))
        if lost:
            self.last_get[session] = number, []
            raise Refusal(f"LeaseLost: {lost}")
        if not self.ready and options.get("timeout") != 0:
            self._park(Parked(sock, msgid, options))
            return None
        return self._take(options)

    def _park(self, parked: Parked) -> None:
        self.parked.append(parked)
        timeout = parked.options.get("timeout")
        if timeout is not None:
            timer = threading.Timer(timeout, self._give_up, [parked])
            timer.daemon = True
            timer.start()

    def _give_up(self, parked: Parked) -> None:
        with self.lock:
            if parked in self.parked:
                self.parked.remove(parked)
                self.last_get[parked.options["session"]] = parked.options["seq"], []
                send(parked.sock, parked.msgid, [])

    def _take(self, options: dict[str, Any]) -> list[Any]:
        count = options.get("n", 1)
        items, self.ready = self.ready[:count], self.ready[count:]
        for item in items:
            item[1] += 1
            self.leased[item[0], item[1]] = item
        self.last_get[options["session"]] = options["seq"], [list(item) for item in items]
        return [list(item) for item in items]

    def _ack(self, keys: list[Any]) -> list[Any]:
        lost = []
        for key in map(tuple, keys):
            if self.leased.pop(key, None) is None and key not in self.acked:
                lost.append(key)
            else:
                self.acked.add(key)
        return lost

    def do_ack(self, sock: Any, msgid: int, keys: list[Any], options: Any = None) -> Any:
        lost = self._ack(keys)
        if lost:
            raise Refusal(f"LeaseLost: {lost}")
        return True

    def do_nack(self, sock: Any, msgid: int, id: int, attempt: int, options: dict[str, Any]) -> Any:
        item = self.leased.pop((id, attempt), None)
        if item is None:
            raise Refusal(f"LeaseLost: {id}")
        self.nacked.append(options)
        if attempt == 5 or options.get("dead"):
            self.dead.append([id, attempt, item[2], options.get("error")])
        else:
            self.ready.insert(0, item)
        return True

    def do_touch(self, sock: Any, msgid: int, id: int, attempt: int) -> Any:
        if (id, attempt) not in self.leased:
            raise Refusal(f"LeaseLost: {id}")
        return True

    def do_peek(self, sock: Any, msgid: int, count: int) -> Any:
        return self.ready[:count]

    def do_dead(self, sock: Any, msgid: int, count: int) -> Any:
        return self.dead[:count]

    def do_retry(self, sock: Any, msgid: int, id: Any = None) -> Any:
        again = [item for item in self.dead if id in (None, item[0])]
        self.ready.extend([item[0], 0, item[2]] for item in again)
        self.dead = [item for item in self.dead if item not in again]
        return len(again)

    def do_purge(self, sock: Any, msgid: int) -> Any:
        count, self.ready = len(self.ready), []
        return count

    def do_stats(self, sock: Any, msgid: int) -> Any:
        return {"ready": len(self.ready), "leased": len(self.leased), "waiting": len(self.parked), "paused": False}

    def do_pause(self, sock: Any, msgid: int) -> Any:
        return True

    do_resume = do_pause

    def do_join(self, sock: Any, msgid: int) -> Any:
        if self.ready or self.leased:
            self.joins.append((sock, msgid))
            return None
        return True

    # -- what is answered later

    def give(self) -> None:
        """Answer what waits and can be answered."""
        while self.ready and self.parked:
            parked = self.parked.pop(0)
            send(parked.sock, parked.msgid, self._take(parked.options))
        if not self.ready and not self.leased:
            while self.joins:
                send(*self.joins.pop(), True)

    def end_lease(self, id: int, attempt: int) -> None:
        """Let a lease run out."""
        with self.lock:
            self.ready.insert(0, self.leased.pop((id, attempt)))
            self.give()

    # -- one connection

    def serve(self, sock: socket.socket) -> None:
        for _, msgid, method, params in requests(sock):
            with self.lock:
                try:
                    answer = self.do(sock, msgid, method, params)
                except Refusal as refusal:
                    send(sock, msgid, None, str(refusal))
                    continue
                if self.loses and method.startswith(("queue.put", "queue.get")):
                    self.loses -= 1
                    return
                if answer is not None:
                    send(sock, msgid, answer)
                self.give()


def send(sock: socket.socket, msgid: int, result: Any, error: str | None = None) -> None:
    with contextlib.suppress(OSError):
        sock.sendall(make_packer().pack([1, msgid, error, result]))


@contextlib.contextmanager
def keeping() -> Iterator[tuple[Keeper, Server]]:
    """A keeper and its server, for the length of a ``with`` block."""
    keeper = Keeper()
    with serve(keeper.serve) as server:
        yield keeper, server
