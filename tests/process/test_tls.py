"""TLS as the first screen of SECURITY.md has it: its own files, with a real HAProxy, at ports that the kernel picks."""

from __future__ import annotations

import csv
import os
import re
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from code_blocks import code_blocks
from programs import free_port, needed

from rpccluster import Client, ConnectionLost, RPCClusterError
from rpccluster.testing import RunningCluster, running_cluster, wait_until

SECURITY = Path(__file__).resolve().parent.parent.parent / "SECURITY.md"
SECONDS = 30
PLAIN = "\nlisten plain\n  bind 127.0.0.1:{port}\n  server workers {address} check inter 1s fall 3 rise 1\n"


@dataclass(frozen=True)
class Fronted:
    """A cluster, the HAProxy in front of it, and the one beside its callers."""

    cluster: RunningCluster
    folder: Path
    tls_port: int
    near_port: int

    def client(self) -> Client:
        """A client that calls through both."""
        return Client(f"127.0.0.1:{self.near_port}", timeout=SECONDS)

    def health(self) -> dict[str, tuple[str, str]]:
        """By section: what HAProxy holds of the workers, and by which check."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(self.folder / "stats"))
            sock.sendall(b"show stat\n")
            told = b"".join(iter(lambda: sock.recv(65536), b"")).decode("latin-1")  # with the bytes of a check
        rows = csv.DictReader(told.lstrip("# ").splitlines())
        return {row["pxname"]: (row["status"], row["check_status"]) for row in rows if row["svname"] == "workers"}


@pytest.fixture(scope="module")
def fronted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fronted]:
    """By SECURITY.md's own files; beside it a section with HAProxy's plain check, and quicker checks."""
    haproxy, _ = needed("haproxy"), needed("openssl")
    folder = tmp_path_factory.mktemp("tls")
    blocks = list(code_blocks(SECURITY))
    (making,) = (line for block in blocks for line in block.lines() if line.startswith("openssl"))
    subprocess.run(
        f"umask 077; {making}; cat rpc.crt rpc.key > rpc.pem", shell=True, cwd=folder, check=True, timeout=60
    )
    with running_cluster(tmp_path_factory.mktemp("cluster"), number_workers=1, timeout=0) as cluster:
        made = Fronted(cluster, folder, free_port(), free_port())
        address = cluster.address.partition("://")[2]
        ports = {"18443": str(made.tls_port), "18444": str(made.near_port)}
        texts = {block.name: re.sub("1844[34]", lambda found: ports[found[0]], block.text) for block in blocks}
        server = texts["server.cfg"].replace("127.0.0.1:18800 check", f"{address} check inter 1s fall 3 rise 1")
        server = f"global\n  stats socket {folder}/stats\n{server}{PLAIN.format(port=free_port(), address=address)}"
        (folder / "server.cfg").write_text(server)
        (folder / "callers.cfg").write_text(texts["callers.cfg"])
        proxies = [subprocess.Popen([haproxy, "-db", "-f", f"{end}.cfg"], cwd=folder) for end in ("server", "callers")]
        try:
            wait_until(lambda: (folder / "stats").exists() and made.health()["rpc"] == ("UP", "L7OK"))
            wait_until(lambda: answers(made.near_port))
            yield made
        finally:
            for proxy in proxies:
                proxy.kill()
                proxy.wait()


def answers(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def test_a_connection_through_both_survives_a_reload(fronted: Fronted) -> None:
    """And every call is answered."""
    with fronted.client() as client:
        before = client.call("pid")
        assert fronted.cluster.run("reload", "--all").returncode == 0
        wait_until(lambda: client.call("pid") != before)
        assert client.call("echo", b"x" * 100_000) == b"x" * 100_000


def test_without_the_certificate_nobody_calls(fronted: Fronted) -> None:
    """Neither in plain text, nor by TLS with no certificate; with it, by TLS from anywhere."""
    request = b"\x94\x00\x01\xa8rpc.ping\x90"
    with Client(f"127.0.0.1:{fronted.tls_port}", timeout=SECONDS) as plain, pytest.raises(RPCClusterError):
        plain.call("rpc.ping")
    context = ssl.create_default_context(cafile=str(fronted.folder / "rpc.crt"))
    with pytest.raises(OSError), tls(fronted, context) as sock:  # TLS 1.3 tells it at the first read
        sock.sendall(request)
        assert not sock.recv(100)
        raise ConnectionError("it was closed without a word")
    context.load_cert_chain(fronted.folder / "rpc.pem")
    with tls(fronted, context) as sock:
        sock.sendall(request)
        assert sock.recv(100) == b"\x94\x01\x01\xc0\xa4pong"


def tls(fronted: Fronted, context: ssl.SSLContext) -> ssl.SSLSocket:
    sock = socket.create_connection(("127.0.0.1", fronted.tls_port), SECONDS)
    return context.wrap_socket(sock, server_hostname="rpc.internal")


def test_only_the_call_of_ping_sees_that_a_cluster_hangs(fronted: Fronted) -> None:
    """HAProxy's plain check holds a stopped worker for healthy."""
    (worker,) = (each["pid"] for each in fronted.cluster.status()["workers"] if each["state"] == "ready")
    wait_until(lambda: fronted.health()["plain"] == ("UP", "L4OK"))
    os.kill(worker, signal.SIGSTOP)
    try:
        wait_until(lambda: fronted.health()["rpc"] == ("DOWN", "L7TOUT"), 60)
        assert fronted.health()["plain"] == ("UP", "L4OK")
        with fronted.client() as client, pytest.raises(ConnectionLost):
            client.call("pid")
    finally:
        os.kill(worker, signal.SIGCONT)
    wait_until(lambda: fronted.health()["rpc"] == ("UP", "L7OK"))
    with fronted.client() as client:
        assert client.call("pid") == worker
