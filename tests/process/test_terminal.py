"""A master with a terminal: what the terminal does by itself commands nobody, what `kill` sends is obeyed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from rpccluster.testing import RunningCluster, wait_until


class Terminal:
    """A terminal, the controlling one of what is started in it, and all that was shown there."""

    def __init__(self) -> None:
        self._ours, self.descriptor = pty.openpty()
        self.shown = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while piece := os.read(self._ours, 4096):
                self.shown += piece

    def start(self, command: Sequence[str], folder: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(folder)},
            stdin=self.descriptor,
            stdout=self.descriptor,
            stderr=self.descriptor,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )

    def resize(self) -> None:
        """The kernel sends WINCH to the group in the foreground."""
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))

    def close(self) -> None:
        os.close(self.descriptor)
        os.close(self._ours)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    """Closed at the end."""
    made = Terminal()
    yield made
    made.close()


@contextlib.contextmanager
def _runs(terminal: Terminal, running: RunningCluster, command: Sequence[str]) -> Iterator[int]:
    """The pid of the master that ``command`` starts."""
    process = terminal.start(command, running.folder)
    try:
        yield running.wait_ready()["master"]["pid"]
    finally:
        running.stop()
        if process.poll() is None:
            process.kill()
        process.wait(60)


def test_a_resized_window_drains_nobody(make_cluster, terminal):
    """WINCH of a controlling terminal means nothing; without one it drains, see test_scaling."""
    running = make_cluster(log_file="cluster.log")
    with _runs(terminal, running, running.command()) as master:
        before = running.worker_pids()
        terminal.resize()
        os.kill(master, signal.SIGWINCH)
        os.kill(master, signal.SIGUSR1)
        running.wait_log("Handling signal: usr1")
        assert (running.status()["master"]["state"], running.worker_pids()) == ("running", before)
        with running.client() as client:
            assert client.call("sum", 1, 2) == 3
        assert "winch" not in running.log_text()


def test_a_terminal_that_stops_writers_stops_nobody(make_cluster, terminal):
    """``stty tostop``, the master in the background: its lines are shown, and none becomes a TTOU; those that are
    sent go on to scale."""
    running = make_cluster(number_workers=2)
    shell = ["sh", "-mc", 'stty tostop; "$@" & wait', "sh", *running.command()]
    with _runs(terminal, running, shell) as master:
        os.kill(master, signal.SIGUSR1)
        wait_until(lambda: b"Handling signal: usr1" in terminal.shown)
        began, used = time.monotonic(), _cpu_seconds(master)
        os.kill(master, signal.SIGTTOU)
        assert running.wait_ready(number_workers=1)
        os.kill(master, signal.SIGTTIN)
        assert running.wait_ready(number_workers=2)
        wait_until(lambda: time.monotonic() - began > 0.5)
        assert _cpu_seconds(master) - used < 0.8 * (time.monotonic() - began)
        wait_until(lambda: b"signal: ttin" in terminal.shown)
        assert (terminal.shown.count(b"Handling signal: ttou"), terminal.shown.count(b"signal: ttin")) == (1, 1)


def _cpu_seconds(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
