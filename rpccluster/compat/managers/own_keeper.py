"""A keeper of a program's own: a cluster that has queues and nothing else, in a private folder.

It is started, awaited and ended here, in the program. `rpccluster.compat.managers.ending`, a process beside it, ends it
if the program cannot.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rpccluster import Client
from rpccluster.address import Address, TCPAddress, parse_address, unix_address
from rpccluster.errors import RPCClusterError

__all__ = ["OwnKeeper"]

_START_SECONDS = 30.0
_END_SECONDS = 15.0
_LOOK_SECONDS = 0.02
_NO_LEASE_SECONDS = 10 * 365 * 86400  # an item is its consumer's as long as that lives: managers know no other end

_CONFIG = """\
[cluster]
control_socket = {folder}/control.sock
pidfile = {folder}/pid
authkey_file = {keys}
graceful_timeout = 5

[queues]
path = {folder}/queues.db
durable = os
bind = {address}
"""

#: The program may have found this package by a path that only it knows.
_PROGRAM = "import sys; sys.path[:] = {path!r}; {run}"
_MASTER = "from rpccluster.cli.main import main; sys.argv[1:] = ['-c', {config!r}]; main()"
_ENDING = "from rpccluster.compat.managers.ending import main; main({pid}, {folder!r}, {program})"


class OwnKeeper:
    """The process of the keeper's master; ``ident`` is its pid."""

    def __init__(self, address: Address | None, key: str | None, names: Sequence[str]) -> None:
        """Start it with the queues ``names``. Raises RuntimeError."""
        self._folder = folder = tempfile.mkdtemp(prefix="rpccluster-")
        self._program = os.getpid()
        self.address = address or unix_address(f"{folder}/queues.sock")
        try:
            self._configure(key, names)
            self._process = self._start(_MASTER.format(config=f"{folder}/cluster.ini"), subprocess.DEVNULL)
            ending = _ENDING.format(pid=self._process.pid, folder=folder, program=self._program)
            self._ending = self._start(ending, subprocess.PIPE)
            self._await(key)
        except BaseException:
            self.end()
            raise
        atexit.register(self.end)

    def _configure(self, key: str | None, names: Sequence[str]) -> None:
        folder = self._folder
        keys = f"{folder}/keys" if key else ""
        if key:
            descriptor = os.open(keys, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "w") as file:
                file.write(f"{key}\n")
        text = _CONFIG.format(folder=folder, keys=keys, address=self.address)
        queues = [f"[queue:{name}]\nlease = {_NO_LEASE_SECONDS}\n" for name in names]
        Path(folder, "cluster.ini").write_text("\n".join([text, *queues]))

    def _start(self, run: str, stdin: int) -> subprocess.Popen[bytes]:
        path = [os.path.abspath(entry) for entry in sys.path]
        with open(f"{self._folder}/log", "ab") as log:
            return subprocess.Popen(
                [sys.executable, "-c", _PROGRAM.format(path=path, run=run)],
                stdin=stdin,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _await(self, key: str | None) -> None:
        """Wait until it answers."""
        ends_at = time.monotonic() + _START_SECONDS
        options = {"authkey": key} if key else {}
        while self._process.poll() is None and time.monotonic() < ends_at:
            with contextlib.suppress(RPCClusterError), self._client(options) as client:
                client.call("rpc.ping")
                return
            time.sleep(_LOOK_SECONDS)
        raise RuntimeError(f"the keeper of the manager does not start: {self._last_words()}")

    def _client(self, options: dict[str, str]) -> Client:
        if isinstance(self.address, TCPAddress) and self.address.port == 0:
            self.address = self._chosen()
        return Client(self.address, timeout=_START_SECONDS, **options)  # type: ignore[arg-type]

    def _chosen(self) -> Address:
        """Return the address with the port that the kernel has chosen, which the master knows."""
        with Client(f"unix://{self._folder}/control.sock") as control:
            groups = control.call("status")["groups"]
        listeners = next(group["listeners"] for group in groups if group["name"] == "queues")
        return next(found for found in map(parse_address, listeners) if isinstance(found, TCPAddress))

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            return Path(self._folder, "log").read_text(errors="replace")[-2000:].strip()
        return "its log cannot be read"

    # -- as of a `multiprocessing.Process`

    @property
    def ident(self) -> int:
        """Its pid."""
        return self._process.pid

    pid = ident

    @property
    def exitcode(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._process.poll()

    def is_alive(self) -> bool:
        """Return whether it runs."""
        return self._process.poll() is None

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has ended, at most ``timeout`` seconds."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)

    def terminate(self) -> None:
        """Have it end."""
        self._process.terminate()

    def end(self) -> None:
        """End it, and remove its folder. Does nothing in a forked copy of the program."""
        if os.getpid() != self._program:
            return
        for process in (getattr(self, "_process", None), getattr(self, "_ending", None)):
            if process is not None and process.poll() is None:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_END_SECONDS)
                process.kill()
                process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)
