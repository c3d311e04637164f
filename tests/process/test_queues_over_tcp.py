"""Queues over TCP with a key: two hosts, which are two loopback addresses, and peers that do not prove it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from keepers import Peer, address, peer
from redis_servers import redis_server

import rpccluster
from rpccluster.address import TCPAddress, parse_address
from rpccluster.testing import RunningCluster, wait_until

MakeCluster = Callable[..., RunningCluster]
KEY, OTHERS = "the-key-of-these-queues", "the-key-of-other-queues"
SILENT = 64


@pytest.fixture(params=["sqlite", "redis"])
def hosts(request: pytest.FixtureRequest, tmp_path: Path, make_cluster: MakeCluster) -> Iterator[list[str]]:
    """Two hosts that share a Redis, or one host twice: the addresses of their keepers."""
    keys = tmp_path / "keys"
    keys.write_text(f"{KEY}\n")
    keys.chmod(0o600)

    def start(host: str, **queues: Any) -> str:
        sections = {"queues": {"bind": f"tcp://{host}:0", "max_message_size": "64K", **queues}, "queue:jobs": {}}
        options = {"authkey_file": keys, "auth_timeout": 2, "number_workers": 1}
        return over_tcp(make_cluster(sections=sections, **options).start())

    if request.param == "sqlite":
        yield [start("127.0.0.2")] * 2
        return
    pytest.importorskip("redis", reason="the extra `redis` is not installed")
    with redis_server(tmp_path / "redis") as server:
        yield [start(host, engine=server.address) for host in ("127.0.0.2", "127.0.0.3")]


def over_tcp(cluster: RunningCluster) -> str:
    """The address of a keeper for other hosts."""
    (found,) = (each for each in cluster.group("queues")["listeners"] if each.startswith("tcp://"))
    return str(found)


def connected(where: str) -> socket.socket:
    """A connection that has proved nothing."""
    parsed = parse_address(where)
    assert isinstance(parsed, TCPAddress)
    return socket.create_connection((parsed.host, parsed.port), 30)


def test_a_producer_and_a_consumer_of_two_hosts(hosts: list[str]) -> None:
    """With the key; what waits at one has what is put at the other. Without it, or with another one, nothing is had."""
    producing, consuming = (rpccluster.Queue(where, "jobs", authkey=KEY, timeout=30) for where in hosts)
    with producing, consuming:
        got: list[Any] = []

        def consume() -> None:
            for _ in range(20):
                with consuming.get(timeout=30) as item:  # type: ignore[union-attr]
                    got.append(item.value)

        thread = threading.Thread(target=consume)
        thread.start()
        for number in range(20):
            producing.put({"number": number})
        producing.join(timeout=30)
        thread.join(60)
        assert got == [{"number": number} for number in range(20)]
        for wrong in (None, OTHERS, ("stranger", KEY)):
            with rpccluster.Queue(hosts[0], "jobs", authkey=wrong, timeout=30) as queue:
                with pytest.raises(rpccluster.AuthenticationFailed):
                    queue.put("x")
                with pytest.raises(rpccluster.AuthenticationFailed):
                    queue.get(timeout=20)
        assert producing.stats()["ready"] == 0


@pytest.mark.parametrize("key", ["", "short", b"x" * 15])
def test_a_key_of_the_wrong_length_is_refused_before_it_is_used(key: Any) -> None:
    """By the client; a server's file of keys has the same rule."""
    with pytest.raises((ValueError, TypeError)):
        rpccluster.Queue("tcp://127.0.0.1:1", "jobs", authkey=key)


def test_a_value_above_the_limit_is_refused_in_the_client(hosts: list[str]) -> None:
    """The connection, and what it holds, goes on."""
    with rpccluster.Queue(hosts[0], "jobs", authkey=KEY, timeout=30) as queue:
        queue.put("held")
        held = queue.get(timeout=30)
        assert held is not None
        with pytest.raises(ValueError, match="max_message_size"):
            queue.put("x" * 70_000)
        held.ack()
        queue.put("x" * 60_000)


def test_peers_that_prove_nothing_hold_nobody_up(hosts: list[str]) -> None:
    """Some never say a word, some speak of queues at once, some send too much: all are closed, others are served."""
    words = [
        b"",
        msgpack.packb([0, 1, "queue.put", ["jobs", "x"]]),
        msgpack.packb([0, 1, "queue.put", ["jobs", "x" * 2000]]),
        msgpack.packb([0, 1, "rpc.authenticate", [2, b"p" * 32]]),
        msgpack.packb([0, 1, "rpc.authenticate", [1, "default", b"short"]]),
        msgpack.packb([0, 1, "rpc.authenticate", [1, "default", b"n" * 32]])
        + msgpack.packb([0, 2, "rpc.authenticate", [2, b"p" * 32]]),
        b"\xc1",
        b"\xdd\xff\xff\xff\xff",
        b"\x94\x00",
    ]
    peers = [connected(hosts[0]) for _ in range(SILENT)]
    for number, each in enumerate(peers):
        with contextlib.suppress(OSError):  # it has been closed already
            each.sendall(words[number % len(words)])
    with rpccluster.Queue(hosts[0], "jobs", authkey=KEY, timeout=30) as queue:
        for number in range(50):
            queue.put(number)
            item = queue.get(timeout=30)
            assert item is not None and item.value == number
            item.ack()
        for each in peers:
            said = b""
            while True:
                try:
                    data = each.recv(65536)
                except ConnectionResetError:
                    break
                if not data:
                    break
                said += data
            assert b"true" not in said and len(said) < 1024
            each.close()
        assert queue.stats()["ready"] == 0


def test_a_unix_peer_needs_no_key(tmp_path: Path, make_cluster: MakeCluster) -> None:
    """Its user is known; a half of a message that stays away holds nobody up either."""
    cluster = make_cluster(sections={"queues": {}, "queue:jobs": {}}, number_workers=1).start()
    with peer(cluster) as one, peer(cluster) as half:
        half.socket.sendall(msgpack.packb([0, 1, "queue.put", ["jobs", "x" * 100]])[:50])
        assert one.call("queue.put", "jobs", "y")
        broken = Peer(address(cluster).partition("://")[2])
        broken.socket.sendall(b"\xc1" * 10)
        wait_until(lambda: _is_closed(broken))
        assert [value for _, _, value in one.call("queue.get", "jobs", {})] == ["y"]


def _is_closed(peer: Peer) -> bool:
    try:
        return not peer.socket.recv(65536)
    except ConnectionResetError:
        return True
