"""Servers of queues, each in a folder and on a port of its own: ``python -m bench.servers.queue_server KIND``.

Prints the address when it can be used, and ends when its input does. A queue that is a file has no server: its address
is the file.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.managers import BaseManager
from pathlib import Path

from bench.build import CHECKOUT

__all__ = ["AUTHKEY", "SERVERS"]

AUTHKEY = b"bench"
_STARTS_SECONDS = 20.0

_CONFIG = """\
[cluster]
control_socket = {folder}/control.sock
pidfile = {folder}/pid
[queues]
path = {folder}/queues.db
durable = {durable}
bind = unix://{folder}/queues.sock
[queue:bench]
"""


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _answers(address: tuple[str, int] | str) -> bool:
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as peer:
        return peer.connect_ex(address) == 0


@contextlib.contextmanager
def _program(command: list[str], address: tuple[str, int] | str) -> Iterator[None]:
    """Run a program until the block ends; the block begins when it can be connected to."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, cwd=CHECKOUT)
    until = time.monotonic() + _STARTS_SECONDS
    try:
        while not _answers(address):
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"{command[0]} did not start")
            time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def _rpccluster(folder: str, durable: str = "always") -> Iterator[str]:
    config = Path(folder) / "cluster.ini"
    config.write_text(_CONFIG.format(folder=folder, durable=durable))
    path = f"{folder}/queues.sock"
    with _program([sys.executable, "-m", "rpccluster", "-c", str(config)], path):
        yield f"unix://{path}"


@contextlib.contextmanager
def _managers(folder: str) -> Iterator[str]:
    class Manager(BaseManager):
        """Serves one queue, as a program that uses `multiprocessing.managers` does."""

    Manager.register("JoinableQueue", queue.Queue)
    manager = Manager(address=f"{folder}/socket", authkey=AUTHKEY)
    manager.start()
    made = manager.JoinableQueue()  # type: ignore[attr-defined]
    Path(f"{folder}/token").write_text(str(made._token.id))
    try:
        yield folder
    finally:
        manager.shutdown()


@contextlib.contextmanager
def _redis(folder: str) -> Iterator[str]:
    port = _free_port()
    options = f"--port {port} --bind 127.0.0.1 --appendonly yes --appendfsync always --save --dir {folder}"
    with _program(["redis-server", *options.split()], ("127.0.0.1", port)):
        yield str(port)


@contextlib.contextmanager
def _beanstalkd(folder: str) -> Iterator[str]:
    port = _free_port()
    with _program(["beanstalkd", "-l", "127.0.0.1", "-p", str(port), "-b", folder, "-f", "0"], ("127.0.0.1", port)):
        yield str(port)


@contextlib.contextmanager
def _file(folder: str) -> Iterator[str]:
    yield folder


SERVERS = {
    "rpccluster": _rpccluster,
    "managers": _managers,
    "redis streams": _redis,
    "beanstalkd": _beanstalkd,
    "litequeue": _file,
    "persist-queue": _file,
}


def main(kind: str) -> None:
    """Serve until standard input ends."""
    with tempfile.TemporaryDirectory() as folder, SERVERS[kind](folder) as address:
        print(address, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1])
