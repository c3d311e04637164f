"""Processes of plugins, forked from the tests as the master forks them: their output, messages and exit status."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Callable

from rpccluster.child.assignment import Assignment, PluginPart
from rpccluster.child.life import live
from rpccluster.config.sections.plugin import PluginOptions
from rpccluster.ipc.channel import Channel
from rpccluster.plugin.main import load
from tests.child.born import made_up

WAIT_SECONDS = 30


class Born:
    """A plugin's process. Its output is read all the time."""

    def __init__(self, pid: int, read_end: int, channel: Channel, assignment: Assignment[PluginPart]) -> None:
        self.pid = pid
        self.channel = channel
        self.row = assignment.row
        self._read_end = read_end
        self._output = b""
        self._has_changed = threading.Condition()
        self._status: int | None = None
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while data := os.read(self._read_end, 1 << 16):
            with self._has_changed:
                self._output += data
                self._has_changed.notify_all()

    @property
    def output(self) -> str:
        """All that it has written."""
        return self._output.decode("utf-8", "backslashreplace")

    def wait_for(self, text: str) -> str:
        """The output, as soon as ``text`` is in it."""
        with self._has_changed:
            assert self._has_changed.wait_for(lambda: text in self.output, WAIT_SECONDS), self.output
        return self.output

    def messages(self) -> list[Any]:
        """What it has told the master since the last call."""
        return [message for message, _ in self.channel.receive()]

    def signal(self, signum: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, signum)

    def ended(self) -> int:
        """Its exit status, negative for a signal, when it has ended and nothing more is written."""
        if self._status is None:
            self._reader.join(WAIT_SECONDS)
            status = os.waitpid(self.pid, 0)[1]
            self._status = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
        return self._status


@contextlib.contextmanager
def born(
    options: PluginOptions,
    *,
    name: str = "thing",
    listeners: Sequence[socket.socket] = (),
    names: Sequence[str] = (),
    notify: str = "",
    **changes: Any,
) -> Iterator[Born]:
    """A plugin's process; it is killed at the end."""
    read_end, write_end = os.pipe()
    part = PluginPart(name, list(listeners), list(names), write_end, notify)
    fields = {"options": options, "part": part, "kind": "plugin", "name": f"plugin {name}", **changes}
    with made_up(**fields) as (assignment, channel):
        pid = forked(lambda: live(assignment, load))
        os.close(write_end)
        child = Born(pid, read_end, channel, assignment)
        assignment.channel.close()
        try:
            yield child
        finally:
            if child._status is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
                os.kill(pid, signal.SIGKILL)
                child.ended()


def forked(be: Callable[[], object]) -> int:
    """Fork a process that calls ``be``, which never returns."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    pid = os.fork()
    if pid == 0:
        be()
        os._exit(99)
    return pid


def module(folder: Path, text: str, name: str = "jobs") -> str:
    """Write a module. Returns its folder, for ``pythonpath``."""
    (folder / f"{name}.py").write_text(text)
    return str(folder)
