"""Runs real clusters in tests: starts one in a folder, asks it, signals it, ends it.

Owns the processes that it starts, and ends them whatever happens. Runs in the tests of services and of this project.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Callable, TypeVar

import psutil

from rpccluster.address import parse_address
from rpccluster.client import Client
from rpccluster.client.sync.connection import Connection
from rpccluster.client.sync.wire import open_wire
from rpccluster.errors import RPCClusterError

__all__ = ["RunningCluster", "call_once", "is_alive", "running_cluster", "title_of", "wait_until"]

_T = TypeVar("_T")
_LOOK_SECONDS = 0.02
_PATIENCE_SECONDS = 30.0
_AT_ONCE = 100  # connections that are tried without a pause


def wait_until(condition: Callable[[], _T | None], seconds: float = _PATIENCE_SECONDS, what: str = "") -> _T:
    """Wait until ``condition`` returns something true, and return it. Raises AssertionError after ``seconds``.

    A condition that asks a process which goes at that moment, or looks for a row or a file that is not there yet, is
    not true yet: errors of a client, of the operating system and of a lookup count as such. It is asked once more
    after the time is over, so that a process of tests that was itself held up finds what has come meanwhile.
    """
    deadline = time.monotonic() + seconds
    while True:
        is_late, error = time.monotonic() > deadline, None
        try:
            found = condition()
        except (RPCClusterError, OSError, LookupError, psutil.Error) as raised:
            found, error = None, raised
        if found:
            return found
        if is_late:
            raise AssertionError(f"not so after {seconds:g} seconds: {what or condition}") from error
        time.sleep(_LOOK_SECONDS)


def call_once(address: str, method: str, *params: Any, seconds: float = 30.0) -> Any:
    """Make one call over its own connection, never repeat it, and return the result. Raises as a `Client` does."""
    now = time.monotonic()
    connection = Connection(open_wire(parse_address(address), now + seconds), 1 << 24)
    try:
        return connection.call(method, params, now, now + seconds)
    finally:
        connection.close("the call is over")


def title_of(pid: int) -> str:
    """Return the title that ps(1) shows for a process."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()


def is_alive(pid: int) -> bool:
    """Return whether the process ``pid`` runs; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


class RunningCluster:
    """A cluster that runs in ``folder`` from ``cluster.ini``, with its log and stderr in ``cluster.log`` there."""

    def __init__(
        self,
        folder: Path,
        options: Mapping[str, object],
        *,
        sections: Mapping[str, Mapping[str, object]] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """``options`` are keys of ``[cluster]``; they override the defaults of tests. ``sections`` are the others."""
        self.folder = folder
        self.config = folder / "cluster.ini"
        self.log = folder / "cluster.log"
        # without bytecode: its date has whole seconds, and a test may rewrite a module twice in one
        self._environment = dict(os.environ, PYTHONPATH=str(folder), PYTHONDONTWRITEBYTECODE="1", **(environment or {}))
        self._process: subprocess.Popen[str] | None = None
        self._pids: set[int] = set()
        self.options: dict[str, object] = {
            "service": "rpccluster.demo:Demo",
            "bind": "tcp://127.0.0.1:0",
            "number_workers": 2,
            "graceful_timeout": 10,
            "pidfile": folder / "cluster.pid",
            "control_socket": folder / "control.sock",
            **options,
        }
        self.sections = dict(sections or {})
        self.write_config()

    def write_config(self, **changes: object) -> None:
        """Write the configuration file with ``changes``, which stay; a value of None leaves a key out."""
        self.options.update(changes)
        sections = {"cluster": self.options, **self.sections}
        self.config.write_text("\n".join(_section(header, options) for header, options in sections.items()))

    def write_section(self, header: str, options: Mapping[str, object] | None) -> None:
        """Write the section ``header`` of the configuration file with ``options`` alone; None leaves it out."""
        self.sections.pop(header, None)
        if options is not None:
            self.sections[header] = options
        self.write_config()

    def write_module(self, name: str, text: str) -> None:
        """Write a Python module: the service's own, or one that it imports."""
        (self.folder / f"{name}.py").write_text(text)

    def command(self, *arguments: str) -> list[str]:
        """Return the command line of the program, with ``-c`` and ``arguments``."""
        return [sys.executable, "-m", "rpccluster", "-c", str(self.config), *arguments]

    def run(self, *arguments: str, seconds: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run the program with ``arguments`` to its end."""
        command = self.command(*arguments)
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def launch(self, *arguments: str, stderr: Any = subprocess.PIPE) -> subprocess.Popen[str]:
        """Start the program with ``arguments``; the caller ends it."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=stderr,
            stderr=stderr,
            text=True,
            start_new_session=True,  # a controlling terminal would change what WINCH means
        )

    def start(self, *arguments: str, are_ready: bool = True) -> RunningCluster:
        """Start the master in the foreground and wait until all workers are ready."""
        with open(self.log, "ab") as log:
            self._process = self.launch(*arguments, stderr=log)
        if are_ready:
            self.wait_ready()
        return self

    def wait_ready(self, seconds: float = 60.0, *, number_workers: int | None = None) -> dict[str, Any]:
        """Wait until all wanted workers are ready and no other one is left; return the status.

        With ``number_workers``, wait until the cluster wants that many, too.
        """

        def settled() -> dict[str, Any] | None:
            status = self.try_status()
            if status is None:  # it may have ended well: another master took over
                assert self._process is None or self._process.poll() in (None, 0), self.log_text()
            if status is None or status["master"]["state"] != "running":
                return None
            wanted = status["master"]["number_workers"]
            ready = [worker["slot"] for worker in status["workers"] if worker["state"] == "ready"]
            is_settled = ready == list(range(wanted)) and len(status["workers"]) == wanted
            is_settled &= all(is_alive(worker["pid"]) for worker in status["workers"])  # the master may not know yet
            return status if is_settled and number_workers in (None, wanted) else None

        return wait_until(settled, seconds, "all workers are ready")

    # -- asking

    def control(self, timeout: float = 60.0) -> Client:
        """Return a client of the control socket."""
        return Client(f"unix://{self.options['control_socket']}", timeout=timeout)

    def status(self) -> dict[str, Any]:
        """Return the master's ``status``. Raises as the client does."""
        with self.control() as control:
            status: dict[str, Any] = control.call("status")
        grouped = [each for group in status.get("groups", ()) for each in group["processes"]]  # an older build has none
        processes = [*status["workers"], *grouped]
        self._pids.update([status["master"]["pid"], *(each["pid"] for each in processes if each["pid"] is not None)])
        return status

    def group(self, name: str) -> dict[str, Any]:
        """Return the row of the group ``name`` in ``status``; empty if there is none."""
        return next((group for group in self.status()["groups"] if group["name"] == name), {})

    def wait_group(self, name: str, state: str = "ready", seconds: float = _PATIENCE_SECONDS) -> dict[str, Any]:
        """Wait until the group ``name`` is in ``state``; return its row."""

        def found() -> dict[str, Any] | None:
            group = self.group(name)
            return group if group and group["state"] == state else None

        return wait_until(found, seconds, f"{name} is {state}")

    def try_status(self) -> dict[str, Any] | None:
        """Return the master's ``status``; None if no master answers."""
        with contextlib.suppress(RPCClusterError):
            return self.status()
        return None

    @property
    def address(self) -> str:
        """The first address that the cluster listens at."""
        return str(self.status()["master"]["listeners"][0])

    def client(self, timeout: float = 30.0) -> Client:
        """Return a client of the service."""
        return Client(self.address, timeout=timeout)

    def client_of(self, pid: int, timeout: float = 30.0) -> Client:
        """Return a client that the worker ``pid`` serves; the service needs the demo's method ``pid``."""
        address = self.address
        others: list[Client] = []  # stay open until it is that worker's turn
        try:
            deadline = time.monotonic() + _PATIENCE_SECONDS
            while len(others) < _AT_ONCE or time.monotonic() < deadline:
                client = Client(address, timeout=timeout)
                if client.call("pid") == pid:
                    return client
                others.append(client)
                if len(others) > _AT_ONCE:  # that worker has not come to run for some time
                    time.sleep(0.1)
            raise AssertionError(f"none of {len(others)} connections came to the worker {pid}")
        finally:
            for client in others:
                client.close()

    def worker(self, pid: int) -> dict[str, Any]:
        """Return the row of the worker ``pid`` in ``status``; empty if there is none."""
        return next((worker for worker in self.status()["workers"] if worker["pid"] == pid), {})

    def worker_pids(self) -> list[int]:
        """Return the pids of the ready workers, by slot."""
        return [worker["pid"] for worker in self.status()["workers"] if worker["state"] == "ready"]

    @property
    def master_pid(self) -> int:
        """The pid of the master: the one that was started here, or the one that has taken over."""
        status = self.try_status()
        if status is None and self._process is not None and self._process.poll() is None:
            return self._process.pid
        return int((status or self.status())["master"]["pid"])

    def log_text(self) -> str:
        """Return the whole log."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def wait_log(self, text: str, seconds: float = _PATIENCE_SECONDS) -> None:
        """Wait until ``text`` stands in the log."""
        wait_until(lambda: text in self.log_text(), seconds, f"{text!r} in the log")

    def left_behind(self) -> list[str]:
        """Name what an ended cluster should not have left: processes, socket files, a pid."""
        left = [f"process {pid}" for pid in _pids_that_name(str(self.config))]
        left += [f"socket {path}" for path in self.folder.rglob("*") if path.is_socket()]
        pidfile = self.options.get("pidfile")
        if pidfile and Path(str(pidfile)).exists():
            left += [f"pid {pid}" for pid in Path(str(pidfile)).read_text().split()]
        return left

    # -- ending

    def signal(self, signum: int) -> None:
        """Send the master a signal."""
        os.kill(self.master_pid, signum)

    def wait(self, seconds: float = 60.0) -> int:
        """Wait for the master that was started here to end; return its exit code."""
        assert self._process is not None
        return self._process.wait(seconds)

    def stop(self) -> None:
        """End every process of this cluster that still runs, by pid."""
        self.try_status()
        if self._process is not None and self._process.poll() is None:
            self._process.kill()  # it is ours until it is waited for, whatever its command line shows at this moment
        for pid in self._pids:
            if is_alive(pid) and _is_ours(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if self._process is not None:
            self._process.wait(_PATIENCE_SECONDS)
        for pid in self._pids:
            wait_until(lambda pid=pid: not (is_alive(pid) and _is_ours(pid)), what=f"{pid} is gone")  # type: ignore[misc]


def _pids_that_name(text: str) -> Iterator[int]:
    """Yield the pid of each process whose command line holds ``text``."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if text.encode() in (process / "cmdline").read_bytes():
                yield int(process.name)


def _is_ours(pid: int) -> bool:
    """Return whether ``pid`` still belongs to a process of a cluster, and not to a later process."""
    with contextlib.suppress(OSError):
        process = Path(f"/proc/{pid}")
        is_named = b"rpccluster" in (process / "cmdline").read_bytes()
        return is_named or b"RPCCLUSTER_GROUP=" in (process / "environ").read_bytes()
    return False


def _section(header: str, options: Mapping[str, object]) -> str:
    lines = [f"{key} = {_ini(value)}" for key, value in options.items() if value is not None]
    return "\n".join([f"[{header}]", *lines, ""])


def _ini(value: object) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value).replace("%", "%%")


@contextlib.contextmanager
def running_cluster(folder: Path, **options: object) -> Iterator[RunningCluster]:
    """Start a cluster, yield it once it serves, and end it afterwards."""
    cluster = RunningCluster(folder, options)
    try:
        yield cluster.start()
    finally:
        cluster.stop()
