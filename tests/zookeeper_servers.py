"""Servers of ZooKeeper for the tests, on loopback and with a short tick: one alone, or three together.

Starts them in a folder, stops them with SIGSTOP, kills and restarts them, and ends them whatever happens. Without Java
or ZooKeeper the test is skipped, with a reason (`tests.programs`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from programs import free_port, missing, needed

__all__ = ["TICK_MS", "Ensemble", "ZooKeeper", "ensemble", "needs_zookeeper", "zookeeper"]

TICK_MS = 200  # sessions of 0.4 to 4 s and more: see `maxSessionTimeout` below
_JAR = Path("/usr/share/java/zookeeper.jar")
_START_SECONDS = 30


class ZooKeeper:
    """One server at a port, with its data in ``folder``; ``peers`` are the lines of an ensemble's configuration."""

    def __init__(self, folder: Path, port: int, peers: tuple[str, ...] = (), number: int = 0) -> None:
        self.folder = folder
        self.port = port
        self.address = f"127.0.0.1:{port}"
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "zoo.cfg").write_text(
            "\n".join(
                [
                    f"tickTime={TICK_MS}",
                    "initLimit=50",
                    "syncLimit=10",
                    f"dataDir={folder}",
                    f"clientPort={port}",
                    "clientPortAddress=127.0.0.1",
                    "maxSessionTimeout=60000",
                    "admin.enableServer=false",
                    "4lw.commands.whitelist=*",
                    *peers,
                    "",
                ]
            )
        )
        if number:
            (folder / "myid").write_text(str(number))
        (folder / "log4j.properties").write_text(
            "log4j.rootLogger=WARN, out\nlog4j.appender.out=org.apache.log4j.ConsoleAppender\n"
            "log4j.appender.out.layout=org.apache.log4j.SimpleLayout\n"
        )

    def start(self, wait: bool = True) -> None:
        """Start it, and wait until it serves."""
        with open(self.folder / "out", "ab") as out:
            self._process = subprocess.Popen(
                [
                    needed("java"),
                    "-Xmx64m",
                    "-XX:+UseSerialGC",
                    "-XX:TieredStopAtLevel=1",
                    "-XX:-UsePerfData",
                    "-cp",
                    f"{self.folder}:{_JAR}",
                    "org.apache.zookeeper.server.quorum.QuorumPeerMain",
                    str(self.folder / "zoo.cfg"),
                ],
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        if wait:
            self.wait()

    def wait(self) -> None:
        """Wait until it serves."""
        until = time.monotonic() + _START_SECONDS
        while not self.serves():
            assert self._process is not None and self._process.poll() is None, (self.folder / "out").read_text()
            assert time.monotonic() < until, (self.folder / "out").read_text()
            time.sleep(0.05)

    def serves(self) -> bool:
        """Whether it answers, and is part of a majority."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as sock:
            sock.settimeout(1)
            sock.sendall(b"srvr")
            answer = b""
            while data := sock.recv(4096):
                answer += data
            return b"Mode:" in answer
        return False

    def send(self, number: int) -> None:
        """Send it a signal, such as SIGSTOP."""
        assert self._process is not None
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        """End it at once; `start` starts it again with its data."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait(10)


class Ensemble:
    """Three servers that know each other."""

    def __init__(self, folder: Path) -> None:
        ports = [(free_port(), free_port()) for _ in range(3)]
        lines = tuple(f"server.{number}=127.0.0.1:{a}:{b}" for number, (a, b) in enumerate(ports, 1))
        self.servers = [
            ZooKeeper(folder / str(number), free_port(), ("standaloneEnabled=false", *lines), number)
            for number in (1, 2, 3)
        ]
        self.address = ",".join(server.address for server in self.servers)

    def start(self) -> None:
        """Start all, and wait until all serve."""
        for server in self.servers:
            server.start(wait=False)
        for server in self.servers:
            server.wait()


def needs_zookeeper() -> None:
    """Skip the test where there is no ZooKeeper."""
    needed("java", "-version")
    if not _JAR.exists():
        missing(f"found no {_JAR}; .ci/run names the packages")


@contextlib.contextmanager
def zookeeper(folder: Path) -> Iterator[ZooKeeper]:
    """One server that serves, for the length of a ``with`` block."""
    needs_zookeeper()
    server = ZooKeeper(folder, free_port())
    try:
        server.start()
        yield server
    finally:
        server.kill()


@contextlib.contextmanager
def ensemble(folder: Path) -> Iterator[Ensemble]:
    """Three servers that serve, for the length of a ``with`` block."""
    needs_zookeeper()
    made = Ensemble(folder)
    try:
        made.start()
        yield made
    finally:
        for server in made.servers:
            server.kill()
