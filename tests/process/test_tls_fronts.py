"""The fronts of docs/tls.md, with a real HAProxy and a real stunnel: callers' addresses and names, checks, reloads."""

from __future__ import annotations

import csv
import os
import re
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgpack
import pytest
from code_blocks import code_blocks
from programs import free_port, needed

from rpccluster.testing import RunningCluster, running_cluster, wait_until

FULL_SCALE = bool(os.environ.get("RPCCLUSTER_FULL_SCALE"))
CALLS, RELOADS = (10_000, 5) if FULL_SCALE else (300, 1)
TLS = Path(__file__).resolve().parent.parent.parent / "docs" / "tls.md"
BLOCKS = list(code_blocks(TLS))

SERVICE = """
import os
import rpccluster

class Who:
    def who(self):
        call = rpccluster.current_call()
        return [os.getpid(), call.peer, call.identity]

    def fail(self):
        raise RuntimeError("told")
"""


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the documentation's own certificates."""
    needed("openssl")
    folder = tmp_path_factory.mktemp("certificates")
    (making,) = (block.text for block in BLOCKS if block.language == "sh")
    subprocess.run(["bash", "-ec", making], cwd=folder, check=True, timeout=60, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    """A cluster behind proxies, whose keys only health checks may do without."""
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "who.py").write_text(SERVICE)
    options = {"service": "who:Who", "bind": "tcp+proxy://127.0.0.1:0", "number_workers": 2, "timeout": 0}
    with running_cluster(folder, **options) as running:
        yield running


@contextmanager
def front(program: str, name: str, cluster: RunningCluster, folder: Path) -> Iterator[int]:
    """A proxy by the documentation's own file, at another port, which it yields."""
    port, address = free_port(), cluster.address.partition("://")[2]
    (text,) = (block.text for block in BLOCKS if block.name == name)
    text = text.replace("18443", str(port)).replace("127.0.0.1:18800", address)
    text = re.sub(r"( cert-cn)? check$", r"\1 check inter 1s fall 3 rise 1", text, flags=re.MULTILINE)
    is_haproxy = name == "haproxy.cfg"
    if is_haproxy:
        text = f"global\n  stats socket {folder}/stats\n{text}"
    (folder / name).write_text(text)
    command = [program, "-db", "-f", name] if is_haproxy else [program, name]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: answers(port), 60, f"{program} listens")
        yield port
    finally:
        process.kill()
        process.wait()


def answers(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


class Caller:
    """A caller over TLS, with the certificate of that name."""

    def __init__(self, port: int, folder: Path, name: str = "web") -> None:
        context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
        context.check_hostname = False
        context.load_cert_chain(folder / f"{name}.pem")
        self.sock = context.wrap_socket(socket.create_connection(("127.0.0.1", port), 30))
        self.peer = "{}:{}".format(*self.sock.getsockname())
        self._unpacker = msgpack.Unpacker()

    def call(self, method: str) -> Any:
        self.sock.sendall(msgpack.packb([0, 7, method, []]))
        for _ in range(1000):
            for _, _, error, result in self._unpacker:
                assert error is None or method == "fail", error
                return result
            data = self.sock.recv(4096)
            assert data, "the connection was lost"
            self._unpacker.feed(data)
        raise AssertionError("no reply")

    def close(self) -> None:
        self.sock.close()


def health(folder: Path) -> tuple[str, str]:
    """What HAProxy holds of the workers, and by which check."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(folder / "stats"))
        sock.sendall(b"show stat\n")
        told = b"".join(iter(lambda: sock.recv(65536), b"")).decode("latin-1")
    rows = csv.DictReader(told.lstrip("# ").splitlines())
    (row,) = (row for row in rows if row["svname"] == "workers")
    return row["status"], row["check_status"]


@pytest.mark.parametrize(
    ("program", "name", "identity"), [("haproxy", "haproxy.cfg", "cert:web"), ("stunnel4", "stunnel.conf", None)]
)
def test_callers_are_known_through_the_front_and_move(
    program: str, name: str, identity: str | None, cluster: RunningCluster, certificates: Path
) -> None:
    """Address and name arrive, the log has them, and connections live through reloads under calls."""
    with front(needed(program), name, cluster, certificates) as port:
        callers = [Caller(port, certificates) for _ in range(3)]
        pids = set()
        for caller in callers:
            pid, peer, who = caller.call("who")
            assert (peer, who) == (caller.peer, identity)
            pids.add(pid)
        callers[0].call("fail")
        cluster.wait_log(f"failed for {callers[0].peer}")
        faults: list[BaseException] = []

        def keep_calling(caller: Caller) -> None:
            try:
                for _ in range(CALLS):
                    assert caller.call("who")[1:] == [caller.peer, identity]
            except BaseException as error:
                faults.append(error)

        threads = [threading.Thread(target=keep_calling, args=(caller,)) for caller in callers]
        for thread in threads:
            thread.start()
        for _ in range(RELOADS):
            assert cluster.run("reload", "--all").returncode == 0
        for thread in threads:
            thread.join()
        assert faults == []
        wait_until(lambda: callers[0].call("who")[0] not in pids, 60, "another worker answers")
        for caller in callers:
            caller.close()


def test_the_health_check_finds_a_cluster_that_hangs(cluster: RunningCluster, certificates: Path) -> None:
    """UP by rpc.ping, DOWN when the workers stand still, UP again; and not one line of it in the log."""
    with front(needed("haproxy"), "haproxy.cfg", cluster, certificates):
        wait_until(lambda: health(certificates) == ("UP", "L7OK"), 60, "it is up")
        before = cluster.log_text()
        pids = cluster.worker_pids()
        try:
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            wait_until(lambda: health(certificates)[0] == "DOWN", 60, "it is down")
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
        wait_until(lambda: health(certificates) == ("UP", "L7OK"), 60, "it is up again")
        new = cluster.log_text()[len(before) :]
        assert "Refusing" not in new and "challenge" not in new and "PROXY" not in new
