"""Keys in a real cluster: clients of each kind, rotation, reload and upgrade, attackers."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Callable

import pytest

import rpccluster
from rpccluster import AuthenticationFailed, Client, Pool
from rpccluster.protocol.codec import pack_request
from rpccluster.testing import RunningCluster, wait_until

FULL_SCALE = bool(os.environ.get("RPCCLUSTER_FULL_SCALE"))
RELOADS = 20 if FULL_SCALE else 2
ATTACKERS = 64

OLD, NEW = "old-key-of-19-bytes", "new-key-of-19-bytes"
WEB = ("web", "web-key-of-19-bytes")

SERVICE = """
import os
import rpccluster

class Who:
    def who(self):
        identity = rpccluster.current_call().identity
        return [os.getpid(), identity, list(identity.names) if identity else []]
"""


@pytest.fixture
def keyed(make_cluster) -> Callable[..., RunningCluster]:
    """A cluster with the keys OLD and WEB, at TCP and at a Unix path."""

    def start(**options: object) -> RunningCluster:
        running: RunningCluster = make_cluster(service="who:Who", **options)
        running.write_module("who", SERVICE)
        write_keys(running, OLD, " ".join(WEB))
        path = running.folder / "who.sock"
        running.write_config(authkey_file=running.folder / "keys", unix_socket=path)
        return running.start()

    return start


def write_keys(running: RunningCluster, *lines: str) -> None:
    """Write the file of keys."""
    path = running.folder / "keys"
    path.write_text("\n".join(lines))
    path.chmod(0o600)


def test_clients_of_each_kind_prove_the_key_and_others_call_nothing(keyed) -> None:
    """Sync, asyncio, pools, the command line; no key, a wrong one, an unknown name; a server without keys."""
    running = keyed()
    address = running.address
    with Client(address, authkey=OLD) as client:
        assert client.call("who")[1:] == ["key:default", ["key:default"]]
    with Pool([address], connections=1, authkey=WEB) as pool:
        assert pool.call("who")[1] == "key:web"

    async def by_asyncio() -> None:
        async with rpccluster.aio.Client(address, authkey=WEB) as client:
            assert (await client.call("who"))[1] == "key:web"
        async with rpccluster.aio.Pool([address], connections=1, authkey=OLD) as pool:
            assert (await pool.call("who"))[1] == "key:default"
        for wrong in (None, NEW, ("nobody", OLD)):
            async with rpccluster.aio.Client(address, authkey=wrong) as client:
                with pytest.raises(AuthenticationFailed):
                    await client.call("who")

    asyncio.run(by_asyncio())
    for wrong in (None, NEW, ("nobody", OLD)):
        with Client(address, authkey=wrong) as client, pytest.raises(AuthenticationFailed):
            client.call("who")
    called = running.run("call", "--authkey-file", str(running.folder / "keys"), address, "who")
    assert called.returncode == 0 and "key:default" in called.stdout
    refused = running.run("call", address, "who")
    assert refused.returncode == 3 and "--authkey-file" in refused.stderr
    path = f"unix://{running.options['unix_socket']}"
    with Client(path) as client:
        assert client.call("who")[1] == f"uid:{os.getuid()}"
    with Client(path, authkey=WEB) as client:
        assert client.call("who")[1:] == ["key:web", ["key:web", f"uid:{os.getuid()}"]]
    with Client(path, authkey=NEW) as client, pytest.raises(AuthenticationFailed):
        client.call("who")
    without_keys = f"unix://{running.options['control_socket']}"
    with Client(without_keys, authkey=OLD) as client, pytest.raises(AuthenticationFailed):
        client.call("status")


def test_a_rotation_drops_nobody(keyed) -> None:
    """Below the old key, then in place of it: connections stay, and each key passes as long as it is there."""
    running = keyed(number_workers=1)
    address = running.address
    with Client(address, authkey=OLD) as client:
        (pid, name, _) = client.call("who")
        write_keys(running, OLD, NEW)
        reloaded = running.run("reload")
        assert reloaded.returncode == 0 and "authkey_file" in reloaded.stdout and NEW not in reloaded.stdout
        assert client.call("who")[0] == pid  # no worker was replaced
        for key in (OLD, NEW):
            with Client(address, authkey=key) as each:
                assert each.call("who")[:2] == [pid, name]
        write_keys(running, NEW)
        assert running.run("reload").returncode == 0
        with Client(address, authkey=OLD) as each, pytest.raises(AuthenticationFailed):
            each.call("who")
        assert client.call("who")[0] == pid
        (running.folder / "keys").chmod(0o644)
        refused = running.run("reload")
        assert refused.returncode == 1 and "expected mode 0600" in refused.stderr + refused.stdout
        with Client(address, authkey=NEW) as each:
            assert each.call("who")[0] == pid
    for text in (running.log_text(), *(path.read_text() for path in running.folder.glob("*.history"))):
        assert OLD not in text and NEW not in text and OLD.encode().hex() not in text


@pytest.mark.parametrize("engine", ["python", "compiled"])
def test_a_connection_that_has_passed_moves_without_another_challenge(keyed, engine: str) -> None:
    """Over reloads and an upgrade it is the same connection, with the same identity; new ones come in meanwhile."""
    running = keyed(engine=engine)
    address, is_over, faults = running.address, threading.Event(), []

    def call_anew() -> None:
        while not is_over.is_set():
            try:
                with Client(address, authkey=OLD) as each:
                    each.call("who")
            except Exception as error:
                faults.append(error)

    thread = threading.Thread(target=call_anew)
    with socket.create_connection(tuple_of(address)) as raw, Client(address, authkey=WEB, timeout=30) as client:
        first = client.call("who")
        connection = client._connection
        thread.start()
        for _ in range(RELOADS):
            before = running.worker_pids()
            running.signal(signal.SIGHUP)
            wait_until(lambda before=before: not set(before) & set(running.worker_pids()), 30, "all are new")
            assert client.call("who")[1] == "key:web"
        master = running.master_pid
        running.signal(signal.SIGUSR2)
        wait_until(lambda: running.master_pid != master, 30, "another master")
        running.wait_ready()
        again = client.call("who")
        assert again[1:] == first[1:] and again[0] != first[0]
        assert client._connection is connection and connection.is_open
        is_over.set()
        thread.join()
        raw.close()
    assert faults == []


def tuple_of(address: str) -> tuple[str, int]:
    host, _, port = address[len("tcp://") :].rpartition(":")
    return host, int(port)


def test_peers_that_never_answer_hold_nobody_up(keyed) -> None:
    """They end within auth_timeout, and are told in one line; calls of others go on."""
    running = keyed(auth_timeout=1 if FULL_SCALE else 3, number_workers=1)
    with Client(running.address, authkey=OLD) as client:
        client.call("who")
        silent = [socket.create_connection(tuple_of(running.address), timeout=60) for _ in range(ATTACKERS)]
        for each in silent[::2]:
            each.sendall(pack_request(1, "rpc.authenticate", [1, "web", bytes(32)])[:30])
        assert [client.call("who")[1] for _ in range(20)] == ["key:default"] * 20
        for each in silent:
            assert each.recv(100) == b""
            each.close()
    wait_until(
        lambda: running.status()["workers"][0]["limits"]["challenges_failed"] == ATTACKERS, what="all are counted"
    )
    assert running.log_text().count("auth_timeout passed") < (3 if FULL_SCALE else ATTACKERS / 4)


def test_a_file_that_others_may_read_stops_the_start(make_cluster) -> None:
    """With its place, and what to do."""
    running = make_cluster()
    write_keys(running, OLD)
    (running.folder / "keys").chmod(0o640)
    running.write_config(authkey_file=running.folder / "keys")
    failed = running.run("--check-config")
    assert failed.returncode == 1 and "authkey_file" in failed.stderr and "expected mode 0600" in failed.stderr
