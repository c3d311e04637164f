"""The pidfile: one holder at a time, whatever is left from others."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from rpccluster.errors import StartError
from rpccluster.master.resources.pidfile import Pidfile


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Where the pidfile is to be; its folder is not there yet."""
    return str(tmp_path / "run" / "x.pid")


def write_file(path: str, text: str) -> None:
    os.makedirs(os.path.dirname(path))
    Path(path).write_text(text)


def test_it_is_made_with_its_folder_and_holds_the_pid(path: str) -> None:
    """One line, readable for others, and the descriptor is not inherited."""
    pidfile = Pidfile.acquire(path)
    pidfile.write(4711)
    assert Path(path).read_text() == "4711\n"
    assert os.stat(path).st_mode & 0o777 == 0o644 & ~_umask()
    assert not os.get_inheritable(pidfile.descriptor)
    pidfile.close()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_second_holder_is_refused_and_told_who_has_it(path: str) -> None:
    """Exit code 1, the pid and the path."""
    with_lock = Pidfile.acquire(path)
    with_lock.write(os.getpid())
    expected = re.escape(f"rpccluster already runs with pid {os.getpid()} (pidfile {path})")
    with pytest.raises(StartError, match=expected) as raised:
        Pidfile.acquire(path)
    assert raised.value.exit_code == 1
    with_lock.close()


def test_a_refused_start_leaves_no_descriptor_and_no_trace(path: str) -> None:
    """The file is as it was."""
    with_lock = Pidfile.acquire(path)
    with_lock.write(os.getpid())
    before = os.listdir("/proc/self/fd"), os.stat(path).st_mtime_ns
    with pytest.raises(StartError):
        Pidfile.acquire(path)
    after = os.listdir("/proc/self/fd"), os.stat(path).st_mtime_ns
    assert before == after
    with_lock.close()


def test_the_pid_is_waited_for_up_to_a_second(path: str) -> None:
    """The holder has the lock and will write soon."""
    holder = Pidfile.acquire(path)
    refused: list[str] = []

    def try_it() -> None:
        with pytest.raises(StartError) as raised:
            Pidfile.acquire(path)
        refused.append(str(raised.value))

    thread = threading.Thread(target=try_it)
    thread.start()
    holder.write(os.getpid())
    thread.join()
    assert f"pid {os.getpid()} " in refused[0]
    holder.close()


def test_a_holder_that_never_writes_is_refused_as_unknown(path: str) -> None:
    """After a second, not sooner and not for ever."""
    holder = Pidfile.acquire(path)
    began = time.monotonic()
    with pytest.raises(StartError, match="already runs with pid unknown"):
        Pidfile.acquire(path)
    assert 0.9 < time.monotonic() - began < 10
    holder.close()


@pytest.mark.parametrize("text", ["", "4711\n", "{ours}\n", "1\n", "rubbish\n", "-5", "9" * 400, "\0\xff"])
def test_what_is_left_in_the_file_never_blocks_a_start(path: str, text: str) -> None:
    """A stale pid, a reused one, one of a living stranger, garbage: only the lock counts."""
    write_file(path, text.format(ours=os.getpid()))
    pidfile = Pidfile.acquire(path)
    pidfile.write(12)
    assert Path(path).read_text() == "12\n"
    pidfile.close()


@pytest.mark.parametrize("text", ["4194304\n", f"{os.getppid()}\n", "9" * 400], ids=["dead", "reused", "huge"])
def test_a_stale_pid_is_not_named(path: str, text: str) -> None:
    """Between the lock and the holder's own pid the old text stands there: it is not the one that runs."""
    write_file(path, text)
    holder = Pidfile.acquire(path)
    timer = threading.Timer(0.1, holder.write, [os.getpid()])
    timer.start()
    with pytest.raises(StartError, match=f"with pid {os.getpid()} "):
        Pidfile.acquire(path)
    timer.join()
    holder.close()


def test_the_file_is_rewritten_in_place(path: str) -> None:
    """Never unlinked nor renamed: a lock on another file of that name would protect nothing."""
    pidfile = Pidfile.acquire(path)
    inode = os.stat(path).st_ino
    for pid in (1, 123456, 9):
        pidfile.write(pid)
        assert Path(path).read_text() == f"{pid}\n"
    pidfile.clear()
    pidfile.close()
    assert (Path(path).read_text(), os.stat(path).st_ino) == ("", inode)


def test_the_lock_ends_with_its_last_holder(path: str) -> None:
    """Closing is enough; a copy, as an upgrade's new master has one, keeps it."""
    old = Pidfile.acquire(path)
    new = Pidfile(path, os.dup(old.descriptor))
    old.close()
    new.write(os.getpid())
    with pytest.raises(StartError):
        Pidfile.acquire(path)
    new.close()
    Pidfile.acquire(path).close()


def test_a_kill_9_frees_it(path: str) -> None:
    """The kernel drops the lock with the process."""
    program = (
        "import sys, os, time; from rpccluster.master.resources.pidfile import Pidfile;"
        "p = Pidfile.acquire(sys.argv[1]); p.write(os.getpid()); print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program, path], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(StartError, match=f"with pid {holder.pid} "):
            Pidfile.acquire(path)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        Pidfile.acquire(path).close()


def test_several_instances_may_be_allowed(path: str) -> None:
    """single_instance = false: no lock is asked for."""
    one = Pidfile.acquire(path)
    other = Pidfile.acquire(path, is_single=False)
    other.write(5)
    assert Path(path).read_text() == "5\n"
    one.close()
    other.close()


def test_a_place_where_no_file_can_be_is_named(tmp_path: Path) -> None:
    """Path and reason."""
    (tmp_path / "file").write_text("")
    for path in (str(tmp_path), str(tmp_path / "file" / "x.pid")):
        with pytest.raises(StartError, match=f"^cannot open the pidfile {re.escape(path)}: "):
            Pidfile.acquire(path)


def test_a_lock_that_cannot_be_had_is_not_called_taken(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without locks: the system's reason is told at once."""

    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(StartError, match=r"cannot lock the pidfile .*: No locks available"):
        Pidfile.acquire(path)


def test_a_removed_one_is_made_again(path: str) -> None:
    """Under the same descriptor, locked; the folder, too."""
    pidfile = Pidfile.acquire(path)
    descriptor = pidfile.descriptor
    assert pidfile.is_there()
    os.unlink(path)
    os.rmdir(os.path.dirname(path))
    assert not pidfile.is_there()
    pidfile.make_again(4711)
    assert pidfile.is_there()
    assert (pidfile.descriptor, Path(path).read_text()) == (descriptor, "4711\n")
    assert not os.get_inheritable(descriptor)
    other = os.open(path, os.O_RDWR)
    with pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(other)
    pidfile.close()


def test_one_that_another_has_locked_by_now_is_left_to_it(path: str) -> None:
    """The other's pid is told, its file is not touched, and what we had stays ours."""
    pidfile = Pidfile.acquire(path)
    os.unlink(path)
    other = Pidfile.acquire(path)
    other.write(4711)
    with pytest.raises(StartError, match="the process 4711 has locked"):
        pidfile.make_again(1)
    assert Path(path).read_text() == "4711\n"
    other.close()
    pidfile.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be led astray")
def test_root_follows_no_link_to_it(path: str, tmp_path: Path) -> None:
    """Nor does it take a stranger's file."""
    os.makedirs(os.path.dirname(path))
    (tmp_path / "secret").write_text("root's\n")
    os.symlink(tmp_path / "secret", path)
    with pytest.raises(StartError, match="symbolic link"):
        Pidfile.acquire(path)
    os.unlink(path)
    Path(path).write_text("")
    os.chown(path, 4711, 4711)
    with pytest.raises(StartError, match="found the owner 4711, expected 0"):
        Pidfile.acquire(path)
    assert (tmp_path / "secret").read_text() == "root's\n"
