"""What a running cluster lives in: parents, terminals, folders and files that change or go away under it."""

from __future__ import annotations

import fcntl
import os
import pty
import shlex
import shutil
import signal
import subprocess
import termios

import pytest

from rpccluster import RemoteError
from rpccluster.testing import RunningCluster, is_alive, wait_until


@pytest.fixture
def made(make_cluster) -> RunningCluster:
    """A cluster that logs into a file, not started yet."""
    return make_cluster(number_workers=2, log_file=make_cluster().folder / "it.log")


def assert_serves(running: RunningCluster) -> None:
    """Calls are answered, and commands."""
    with running.client() as client:
        assert client.call("sum", 1, 2) == 3
    assert running.run("status").returncode == 0


def test_the_parent_ends(made):
    """In the foreground, too: an orphan goes on, and ends when it is told to."""
    script = f"{shlex.join(made.command())} >/dev/null 2>&1 & echo $!"
    done = subprocess.run(
        ["sh", "-c", script], cwd=made.folder, env=made._environment, stdout=subprocess.PIPE, text=True, check=True
    )
    made.wait_ready()
    assert made.master_pid == int(done.stdout)
    assert_serves(made)
    assert made.run("stop").returncode == 0
    wait_until(lambda: not is_alive(int(done.stdout)))


def test_the_terminal_goes(made):
    """Its window is closed: the kernel sends HUP, which reloads; writing there is an error that harms nobody."""
    made.write_config(log_file=None)
    leader, terminal = pty.openpty()

    def take_the_terminal() -> None:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    made._process = subprocess.Popen(
        made.command(),
        cwd=made.folder,
        env=made._environment,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        preexec_fn=take_the_terminal,
        text=True,
    )
    os.close(terminal)
    made.wait_ready()
    os.close(leader)
    wait_until(lambda: made.status()["master"]["generation"] == 2)
    made.wait_ready()
    assert_serves(made)
    made.signal(signal.SIGTERM)
    assert made.wait() == 0


def test_who_reads_stderr_goes(made):
    """As a pager that is quit: what is written then is lost."""
    made.write_config(log_file=None)
    read_end, write_end = os.pipe()
    made._process = made.launch(stderr=write_end)
    os.close(write_end)
    made.wait_ready()
    os.close(read_end)
    assert made.run("reload", "--all").returncode == 0
    assert_serves(made)
    made.signal(signal.SIGTERM)
    assert made.wait() == 0


def test_the_folder_of_the_workers_goes(made):
    """No successor can boot; who serves goes on, and when the folder is back so is the successor."""
    folder = made.folder / "theirs"
    folder.mkdir()
    made.write_config(chdir=folder)
    made.start()
    first, second = made.worker_pids()
    folder.rmdir()
    os.kill(first, signal.SIGKILL)
    log = made.options["log_file"]
    wait_until(lambda: "No such file or directory" in log.read_text())
    assert made.worker_pids() == [second]
    assert_serves(made)
    assert made.run("reload", "--all").returncode == 1
    assert made.worker_pids() == [second]
    folder.mkdir()
    wait_until(lambda: len(made.worker_pids()) == 2, 60)  # after a pause, which has grown meanwhile


def test_the_folder_of_the_log_goes(made):
    """Lines go on into what has no name any more; USR1 makes the folder and the file anew."""
    log = made.options["log_file"]
    made.start()
    shutil.rmtree(log.parent)
    assert_serves(made)
    made.signal(signal.SIGUSR1)
    wait_until(log.exists)
    assert made.run("reload", "--all").returncode == 0
    assert "Reloaded the configuration" in log.read_text()


def test_somebody_writes_into_the_pidfile(made):
    """The lock counts; what should stand there is written again."""
    made.start()
    pidfile = made.options["pidfile"]
    master = made.master_pid
    for text in ("", "1\n", "x" * 100):
        pidfile.write_text(text)
        wait_until(lambda: pidfile.read_text() == f"{master}\n")
    assert made.run().returncode == 1
    told = f"Restored the pidfile {pidfile}, which somebody had changed"
    wait_until(lambda: told in made.options["log_file"].read_text())


def test_the_configuration_and_the_start_folder_go(made):
    """What runs needs neither; a reload and an upgrade are refused, and nothing changes."""
    made.start()
    master, workers = made.master_pid, made.worker_pids()
    text = made.config.read_text()
    made.config.unlink()
    with made.control() as control:
        for command in ("reload", "upgrade"):
            with pytest.raises(RemoteError):
                control.call(command)
        status = control.call("status")
    assert (status["master"]["pid"], [row["pid"] for row in status["workers"]]) == (master, workers)
    os.kill(workers[0], signal.SIGKILL)
    wait_until(lambda: workers[0] not in made.worker_pids() and len(made.worker_pids()) == 2)
    made.config.write_text(text)
    assert_serves(made)
