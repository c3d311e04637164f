"""ProcessHandler's worker, by the names of ProcessHandler. Runs in the process of a plugin.

``[plugin:NAME]`` with ``run = module:Class`` runs a class that derives from `SyncWorker`. What ProcessHandler read from
its own file is in the section's ``args``, a JSON object: ``args = {"max_requests": 10000}``. The number of processes,
their restarts and their log are the section's.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Mapping
from multiprocessing.connection import wait
from typing import Any

from rpccluster.plugin.handle import Plugin

__all__ = ["Config", "SyncWorker", "setup_file_logging"]


class Config:
    """The values of a worker, as attributes; a value that nobody has given is None."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.__dict__.update(values)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return None


class SyncWorker:
    """A worker that handles one request after another. Override `handle_request`.

    ``cfg`` is its `Config`. ``LISTENERS`` are the sockets of the section's ``bind``; None if it has none.
    """

    def __init__(self, cfg: Any, file_logger: Any = None, ppid: int | None = None, sockets: Any = None) -> None:
        self.cfg = cfg
        self.file_logger = file_logger or logging.getLogger()
        self.ppid = ppid
        self.LISTENERS = sockets
        self.alive = True
        self.booted = False
        self.worker_name = f"worker: {cfg.proc_name}"
        self.nr = 0  # requests that are handled
        self.max_requests = int(cfg.max_requests or 0)  # 0: as many as come

    @classmethod
    def for_plugin(cls, plugin: Plugin, args: Any = None) -> SyncWorker:
        """Make the worker of a plugin's process; ``args`` are those of its section."""
        given = args if isinstance(args, dict) else {"args": args}
        worker = cls(Config({"proc_name": plugin.name, **given}), logging.getLogger(plugin.name))
        worker.ppid = os.getppid()
        worker.LISTENERS = worker.LISTENERS or plugin.listeners or None
        return worker

    @property
    def pid(self) -> int:
        """The pid of this process."""
        return os.getpid()

    def setup(self) -> None:
        """Prepare the worker, first of all."""

    def init_process(self) -> None:
        """Prepare the process, after `setup`."""
        for sock in self.LISTENERS or ():
            sock.setblocking(False)  # another process may take the connection that all have seen
        self.booted = True

    def handle_request(self, sock: Any = None, client: Any = None, addr: Any = None) -> object:
        """Handle one request; with ``LISTENERS`` the connection ``client`` from ``addr``, which came to ``sock``."""
        raise NotImplementedError

    def stop(self) -> None:
        """Take no further request. It is called at the end, too, also when the plugin is told to end."""
        self.alive = False

    def run(self) -> None:
        """Handle requests until the worker is stopped, or has handled ``max_requests``."""
        try:
            self.setup()
            self.init_process()
            while self.alive:
                if self.LISTENERS:
                    self._accept()
                else:
                    self._handle()
        finally:
            self.stop()

    def _handle(self, *connection: Any) -> None:
        self.handle_request(*connection)
        self.nr += 1
        if self.nr == self.max_requests:
            self.alive = False

    def _accept(self) -> None:
        """Handle a connection from each listener that has one."""
        sock: Any
        for sock in wait(self.LISTENERS):
            with contextlib.suppress(BlockingIOError, ConnectionAbortedError):  # another process has taken it
                client, address = sock.accept()
                client.setblocking(True)
                self._handle(sock, client, address)


def setup_file_logging(
    logger_name: str, file_name: str | None = None, level: int = logging.INFO, log_format: str = "", propagate: int = 0
) -> logging.Logger:
    """Return the logger of that name. Its lines go to the plugin's log, which has its own file and format."""
    logger = logging.getLogger(logger_name)
    logger.setLevel(level)
    return logger
