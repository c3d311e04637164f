"""`rpccluster top` in a real terminal: tmux has it, sends keys, and tells what stands on the screen."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from rpccluster.testing import RunningCluster, wait_until

TMUX = shutil.which("tmux")
pytestmark = pytest.mark.skipif(
    TMUX is None and (not os.environ.get("CI") or bool(os.environ.get("RPCCLUSTER_WITHOUT_PROGRAMS"))),
    reason="tmux is not installed",
)

SERVICE = """
import os, time

def is_open():
    return os.path.exists(os.path.join(os.path.dirname(os.path.abspath(__file__)), "open"))

class Waiting:
    def wait_for_it(self):
        while not is_open(): time.sleep(0.01)
"""
PLUGIN = """
def run(plugin):
    plugin.stopping.wait(600)
"""


class Terminal:
    """A terminal of tmux, on a server of its own."""

    def __init__(self, folder: Path) -> None:
        self._socket = str(folder / "tmux")

    def tmux(self, *words: str) -> str:
        """Give tmux a command; return what it says."""
        command = [str(TMUX), "-S", self._socket, "-f", "/dev/null", *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout

    def start(self, command: list[str], width: int = 80, height: int = 24) -> None:
        """Start ``command`` in a terminal of that size; it tells how it ended, and stays."""
        shell = f"trap : INT; {shlex.join(command)}; echo ENDED $?; exec sleep 600"
        self.tmux("new-session", "-d", "-x", str(width), "-y", str(height), f"exec sh -c {shlex.quote(shell)}")

    def press(self, *keys: str) -> None:
        """Press keys, by tmux's names for them."""
        self.tmux("send-keys", *keys)

    def resize(self, width: int, height: int) -> None:
        """Give the terminal another size."""
        self.tmux("resize-window", "-x", str(width), "-y", str(height))

    def wait(self, *texts: str, without: str = "\0") -> str:
        """Wait until all ``texts`` are on the screen, and not the text ``without``; return the screen."""

        def shown() -> str:
            screen = self.tmux("capture-pane", "-p")
            return screen if all(text in screen for text in texts) and without not in screen else ""

        return wait_until(shown, what=f"{texts} without {without!r} on the screen:\n{self.tmux('capture-pane', '-p')}")

    def end(self) -> None:
        """End it with all that runs in it."""
        subprocess.run([str(TMUX), "-S", self._socket, "kill-server"], capture_output=True, check=False, timeout=30)


@pytest.fixture
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    """Ended in the end."""
    made = Terminal(tmp_path_factory.mktemp("t"))
    yield made
    made.end()


@pytest.fixture
def watched(make_cluster: Any) -> RunningCluster:
    """A cluster of two workers, a plugin and a queue."""
    sections = {"plugin:mailer": {"run": "mailer:run", "description": "sends mail"}, "queue:jobs": {}}
    running: RunningCluster = make_cluster(service="waiting:Waiting", number_workers=2, sections=sections)
    running.write_module("waiting", SERVICE)
    running.write_module("mailer", PLUGIN)
    return running.start()


def test_everything_is_shown_and_keys_are_obeyed(watched: RunningCluster, terminal: Terminal) -> None:
    """Workers, calls, callers, plugins, queues; a stack; a pause; another size; a worker that dies; another master."""

    def call() -> None:
        with watched.client() as client:
            client.call("wait_for_it")

    with ThreadPoolExecutor() as executor:
        running = executor.submit(call)
        try:
            terminal.start(watched.command("top", "-d", "0.2"))
            pids = watched.worker_pids()
            screen = terminal.wait("wait_for_it", "mailer", "jobs", "127.0.0.1", "1 conn", *map(str, pids))
            lines = screen.rstrip("\n").split("\n")
            assert len(lines) == 24 and lines[0].startswith("rpccluster ") and lines[-1].startswith("q quit"), screen
            for title in ("WORKER↑", "METHOD", "RUNNING CALL", "CALLER'S HOST", "GROUP↑", "QUEUE↑"):
                assert title in screen, screen
            terminal.press("Tab", "Tab", "Enter")
            terminal.wait("method wait_for_it for 127.0.0.1:", "waiting.py:9 (wait_for_it)", "esc back")
            terminal.press("Escape")
            terminal.wait("RUNNING CALL", without="esc back")
            terminal.press("z")
            terminal.wait("RUNNING CALL", without="WORKER↑")
            terminal.press("z", "f")
            terminal.wait("FROZEN", "WORKER↑")
            terminal.resize(120, 30)
            terminal.wait("FROZEN", "sends mail", "WORKER↑")
            terminal.press("f")
            terminal.wait("WORKER↑", without="FROZEN")
        finally:
            (watched.folder / "open").touch()
        running.result(timeout=30)
    terminal.wait("no call runs", "no connection")
    os.kill(pids[0], signal.SIGKILL)
    terminal.wait("WORKER↑", without=f" {pids[0]} ")
    upgraded = watched.run("upgrade")
    assert upgraded.returncode == 0, upgraded
    terminal.wait(upgraded.stdout.strip(), "running", without="DOES NOT ANSWER")
    terminal.press("q")
    terminal.wait("ENDED 0", without="WORKER")


def test_a_master_that_is_silent_is_told(watched: RunningCluster, terminal: Terminal) -> None:
    """What is known stays, and the end of the cluster does not end it; Ctrl-C does."""
    terminal.start(watched.command("top", "-d", "0.2"), 160)
    terminal.wait("mailer")
    watched.stop()
    terminal.wait("DOES NOT ANSWER", "mailer")
    terminal.press("C-c")
    terminal.wait("ENDED 0")


def test_without_rich_it_says_what_to_do(watched: RunningCluster, terminal: Terminal) -> None:
    """And the exit code says so; other commands do not need it."""
    words = watched.command("top")
    program = "import sys; sys.modules['rich'] = None; from rpccluster.cli.main import main; main()"
    terminal.start([sys.executable, "-c", program, *words[words.index("-c") :]], 120)
    terminal.wait("top needs rich: pip install 'rpccluster[top]'", "ENDED 1")


def test_without_a_terminal_it_says_what_to_do(watched: RunningCluster) -> None:
    """Exit code 2, as for other faults of the command line."""
    told = watched.run("top")
    assert (told.returncode, "top needs a terminal; `status --watch`" in told.stderr) == (2, True)
