"""A log that nobody reads: calls, commands and signals go on, and what was not written is counted."""

from __future__ import annotations

import os
import signal
import socket

import pytest

from rpccluster.testing import RunningCluster, wait_until

SERVICE = """
import logging

class Loud:
    def log(self, count):
        for number in range(count):
            logging.warning("%d %s", number, "x" * 1000)
        return count
"""


@pytest.fixture
def made(make_cluster) -> RunningCluster:
    """A cluster of ``Loud``."""
    made = make_cluster(service="loud:Loud", number_workers=1)
    made.write_module("loud", SERVICE)
    return made


def launch(made: RunningCluster, stderr: int) -> None:
    """Start it with this stderr, and wait until it serves."""
    made._process = made.launch(stderr=stderr)
    made.wait_ready()


def read_all(descriptor: int) -> str:
    """What is there to be read."""
    os.set_blocking(descriptor, False)
    data = b""
    try:
        while more := os.read(descriptor, 1 << 20):
            data += more
    except BlockingIOError:
        pass
    return data.decode()


def test_a_pipe_and_a_socket_that_nobody_reads(made):
    """As of a pager that waits, or a journal that hangs; afterwards the log goes on and says how much is missing."""
    ours, theirs = socket.socketpair()
    read_end, write_end = os.pipe()
    for ours_end, theirs_end in ((read_end, write_end), (ours.fileno(), theirs.fileno())):
        launch(made, theirs_end)
        with made.client(timeout=60) as client:
            assert client.call("log", 1000) == 1000
        assert made.run("reload", "--all").returncode == 0
        assert os.get_blocking(theirs_end)
        shown = ""

        def told(ours_end: int = ours_end) -> bool:
            nonlocal shown
            shown += read_all(ours_end)
            return "lines of the log were lost" in shown and "Reloaded the configuration (generation 2)" in shown

        wait_until(told)
        made.signal(signal.SIGTERM)
        assert made.wait() == 0
        assert "Shutting down" in read_all(ours_end)
    for end in (read_end, write_end):
        os.close(end)
    ours.close()
    theirs.close()


def test_the_end_does_not_wait_either(made):
    """TERM is obeyed with every pipe full."""
    read_end, write_end = os.pipe()
    launch(made, write_end)
    with made.client(timeout=60) as client:
        client.call("log", 1000)
    made.signal(signal.SIGTERM)
    assert made.wait() == 0
    os.close(read_end)
    os.close(write_end)


def test_a_fifo_without_a_reader(made):
    """The start, USR1 and HUP open it without waiting; a reader that comes later finds the lines."""
    fifo = made.folder / "fifo"
    os.mkfifo(fifo)
    made.write_config(log_file=fifo)
    made.start()
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    assert "Listening at" in read_all(reader)
    os.close(reader)
    log = made.folder / "it.log"
    os.mkfifo(log)
    made.write_config(log_file=log)
    assert made.run("reload", "--all").returncode == 0
    log.rename(made.folder / "old")
    os.mkfifo(log)
    made.signal(signal.SIGUSR1)
    with made.client(timeout=60) as client:
        assert client.call("log", 1000) == 1000
    assert made.run("status").returncode == 0
    made.signal(signal.SIGTERM)
    assert made.wait() == 0


def test_stdout_and_stderr_by_their_paths(made, tmp_path):
    """Whatever they are, a socket for instance, which no path can open; a link to them counts, too."""
    ours, theirs = socket.socketpair()
    link = tmp_path / "link"
    link.symlink_to("/dev/stdout")
    for path in ("/dev/stdout", "/dev/stderr", link):
        made.write_config(log_file=path)
        launch(made, theirs.fileno())
        made.signal(signal.SIGUSR1)
        made.signal(signal.SIGTERM)
        assert made.wait() == 0
        shown = read_all(ours.fileno())
        assert "Handling signal: usr1" in shown
        assert "Shutting down" in shown
    ours.close()
    theirs.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be led astray")
def test_root_follows_no_link_in_the_folder_of_the_log(make_cluster, tmp_path):
    """The log's folder is the workers' own: a link there, at the start or at USR1, gives them nothing of root's."""
    secret = tmp_path / "secret"
    secret.write_text("root's\n")
    secret.chmod(0o600)
    folder = tmp_path / "logs"
    folder.mkdir()
    os.chown(folder, 65534, 65534)
    tmp_path.chmod(0o711)
    log = folder / "it.log"
    made = make_cluster(user="nobody", number_workers=1, log_file=log, pythonpath=None)
    log.symlink_to(secret)
    done = made.run()
    assert done.returncode == 1
    assert done.stderr == (
        f"rpccluster: cannot open the log {log}: it is a symbolic link, which root does not follow\n"
    )
    log.unlink()
    made.start()
    assert log.stat().st_uid == 65534
    log.rename(folder / "old")
    log.symlink_to(secret)
    made.signal(signal.SIGUSR1)
    wait_until(lambda: "Cannot reopen the log" in (folder / "old").read_text())
    assert (secret.stat().st_uid, secret.read_text()) == (0, "root's\n")
    owner = os.stat(os.devnull).st_uid
    made.write_config(log_file=os.devnull)
    assert made.run("reload", "--all").returncode == 0
    assert os.stat(os.devnull).st_uid == owner
