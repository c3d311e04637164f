"""A program written for ProcessHandler runs as a plugin, with its import changed."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

from rpccluster.config.sections.plugin import PluginOptions
from tests.plugin.born import born, module

JOBS = """
import logging
import time

from rpccluster.compat.processhandler import SyncWorker, setup_file_logging

logger = setup_file_logging("jobexecute", "master.log")


class JobExecute(SyncWorker):
    LOGGER_NAME = "jobexecute"

    def __init__(self, cfg, file_logger=None, ppid=None, sockets=None):
        SyncWorker.__init__(self, cfg, file_logger, ppid)
        setup_file_logging(self.LOGGER_NAME, self.cfg.log_file)
        self.logger = logging.getLogger(self.LOGGER_NAME)

    def setup(self):
        print("setup")
        super(JobExecute, self).setup()

    def init_process(self):
        print("init_process")
        super(JobExecute, self).init_process()

    def stop(self):
        super(JobExecute, self).stop()
        self.logger.info("stop %s %s", self.alive, self.nr)

    def handle_request(self):
        while 1:
            print("go....")
            logger.info("go...")
            time.sleep(1.5)
"""
COUNTING = """
from rpccluster.compat.processhandler import SyncWorker

class Counting(SyncWorker):
    def handle_request(self):
        print(self.nr, self.cfg.other, self.cfg.missing, self.worker_name, self.pid == self.ppid)
"""
SERVING = """
from rpccluster.compat.processhandler import SyncWorker

class Serving(SyncWorker):
    def handle_request(self, sock, client, addr):
        client.sendall(b"%d" % self.nr)
        client.close()
"""


def test_its_example_runs_until_it_is_told_to_end(tmp_path: Path) -> None:
    """Set up first, stopped last; what its logger writes is in the plugin's log."""
    with born(PluginOptions(run="jobs:JobExecute", pythonpath=(module(tmp_path, JOBS),))) as child:
        child.wait_for("[INFO] go...")
        child.signal(signal.SIGTERM)
        assert child.ended() == 0
    assert child.output.splitlines() == ["setup", "init_process", "go....", "[INFO] go...", "[INFO] stop False 0"]


def test_max_requests_counts_returns(tmp_path: Path) -> None:
    """And ends the worker. Values of its configuration that nobody has given are None."""
    folder = module(tmp_path, COUNTING)
    chosen = PluginOptions(run="jobs:Counting", pythonpath=(folder,), args=({"max_requests": "2", "other": 5},))
    with born(chosen) as child:
        assert child.ended() == 0
    assert child.output.splitlines() == ["0 5 None worker: thing False", "1 5 None worker: thing False"]


def test_with_listeners_it_handles_connections(tmp_path: Path) -> None:
    """One after another."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        chosen = PluginOptions(run="jobs:Serving", pythonpath=(module(tmp_path, SERVING),), args=({"max_requests": 3},))
        with born(chosen, listeners=[listener], names=["thing"]) as child:
            for number in range(3):
                with socket.create_connection(address, timeout=30) as connection:
                    assert connection.makefile("rb").read() == b"%d" % number
            assert child.ended() == 0
