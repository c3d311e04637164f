"""As root with ``user``: the workers are somebody else, and all that needed root still works."""

from __future__ import annotations

import os
import pwd
import random
import shutil
import signal
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from patience import within

from rpccluster import Client
from rpccluster.testing import RunningCluster, is_alive, wait_until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

# It imports what is loaded already: nobody may not be able to read Python's own files.
SERVICE = """
import os

class Who:
    def ids(self):
        return [list(os.getresuid()), list(os.getresgid()), os.getgroups()]

    def make(self, path):
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o666))
        return os.stat(path).st_mode & 0o777

    def folder(self):
        return os.getcwd()

    def environment(self):
        return {name: os.environ.get(name) for name in ("HOME", "USER", "LOGNAME")}
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that everybody may read, unlike pytest's own."""
    path = Path(tempfile.mkdtemp(prefix="rpccluster-test-"))
    path.chmod(0o755)
    (path / "who.py").write_text(SERVICE)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def nobody() -> pwd.struct_passwd:
    """The account."""
    return pwd.getpwnam("nobody")


@pytest.fixture
def start(folder: Path) -> Iterator[object]:
    """Starts a cluster as nobody whose log is ``folder/it.log``."""
    made = []

    def start(**options: object) -> RunningCluster:
        settings = {"service": "who:Who", "pythonpath": folder, "user": "nobody", "log_file": folder / "it.log"}
        made.append(RunningCluster(folder, {**settings, **options}))
        return made[-1].start()

    yield start
    for cluster in made:
        cluster.stop()


def ids_of(pid: int) -> dict[str, set[int]]:
    """The uids, gids and supplementary groups of a process."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {name: set(map(int, fields[name].split())) for name in ("Uid", "Gid", "Groups")}


def groups_of(account: pwd.struct_passwd) -> set[int]:
    """All groups of an account."""
    return set(os.getgrouplist(account.pw_name, account.pw_gid))


def free_privileged_port() -> int:
    """A port that only root may bind."""
    for port in random.SystemRandom().sample(range(600, 1024), 424):  # others may look for one, too
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    pytest.skip("no privileged port is free")


def test_workers_are_somebody_else(start, nobody):
    """uid, gid and supplementary groups of the workers are nobody's; the master stays root; the port is served."""
    running = start(bind=f"tcp://127.0.0.1:{free_privileged_port()}")
    for pid in running.worker_pids():
        assert ids_of(pid) == {"Uid": {nobody.pw_uid}, "Gid": {nobody.pw_gid}, "Groups": groups_of(nobody)}
    assert ids_of(running.master_pid)["Uid"] == {0}
    with running.client() as client:
        uids, gids, groups = client.call("ids")
    assert (uids, gids, set(groups)) == ([nobody.pw_uid] * 3, [nobody.pw_gid] * 3, groups_of(nobody))


def test_a_group_of_its_own(start, nobody):
    """``group`` counts beside ``user``; without an account a number has no supplementary groups but that."""
    running = start(user="12345", group="23456")
    for pid in running.worker_pids():
        assert ids_of(pid) == {"Uid": {12345}, "Gid": {23456}, "Groups": {23456}}


def test_they_still_die_with_their_master(start):
    """The kernel forgets PR_SET_PDEATHSIG when ids change: it is armed again afterwards."""
    running = start()
    pids, master = running.worker_pids(), running.master_pid
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)  # so that no end-of-file on a channel can be what ends them
    os.kill(master, signal.SIGKILL)
    wait_until(lambda: not any(is_alive(pid) for pid in pids), within(1.0))


def test_logs_are_written_and_reopened(start, folder, nobody):
    """Master and workers write to the log, and after a rename and USR1 to the new one; both are nobody's."""
    running = start(access_log=folder / "access.log")
    log, access = folder / "it.log", folder / "access.log"
    pids = running.worker_pids()

    def workers_that_wrote(path: Path, text: str) -> set[int]:
        lines = path.read_text().splitlines() if path.exists() else []
        return {pid for pid in pids if any(f"[{pid}]" in line and text in line for line in lines)}

    def call_both() -> bool:
        with Client(running.address) as one, Client(running.address) as other:  # one for each worker
            one.call("ids")
            other.call("ids")
        return workers_that_wrote(access, "ids") == set(pids)

    wait_until(call_both)
    for path in (log, access):
        assert path.stat().st_uid == nobody.pw_uid
        path.rename(f"{path}.1")
    running.signal(signal.SIGUSR1)
    wait_until(lambda: log.exists() and access.exists())
    wait_until(call_both)
    assert log.stat().st_uid == access.stat().st_uid == nobody.pw_uid
    running.signal(signal.SIGTERM)
    assert running.wait() == 0
    assert workers_that_wrote(log, "Worker retiring") == set(pids)
    assert "Shutting down: master" in log.read_text()
    assert "Shutting down" not in Path(f"{log}.1").read_text()


def test_a_reload_still_may_what_root_may(start, folder):
    """The master is still root: HUP opens a Unix listener for the workers' user, mode and all."""
    running = start()
    path = folder / "it.sock"
    running.write_config(unix_socket=path, unix_socket_mode="0640")
    assert running.run("reload", "--all").returncode == 0
    assert (stat.S_IMODE(path.stat().st_mode), path.stat().st_uid) == (0o640, pwd.getpwnam("nobody").pw_uid)
    with Client(f"unix://{path}") as client:
        assert client.call("ids")[0][0] == pwd.getpwnam("nobody").pw_uid
    running.write_config(unix_socket_mode="0600")
    assert running.run("reload", "--all").returncode == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_umask_and_folder_follow_a_reload(start, folder):
    """``umask`` is what files are made under, logs included, ``chdir`` where the service runs; HUP changes both."""
    open_to_all = folder / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    running = start(umask="0027", chdir=open_to_all)
    with running.client() as client:
        assert client.call("make", str(open_to_all / "one")) == 0o640
        assert client.call("folder") == str(open_to_all)
    assert stat.S_IMODE((folder / "it.log").stat().st_mode) == 0o640
    running.write_config(umask="0077", chdir=None)
    assert running.run("reload", "--all").returncode == 0
    with running.client() as client:
        assert client.call("make", str(open_to_all / "two")) == 0o600
        assert client.call("folder") == str(running.folder)
    (folder / "it.log").rename(folder / "old.log")
    running.signal(signal.SIGUSR1)
    wait_until(lambda: stat.S_IMODE((folder / "it.log").stat().st_mode) == 0o600)


def test_the_environment_is_the_accounts(start, folder, nobody, monkeypatch):
    """Home and name, also of a number that is nobody's; a TMPDIR that is root's alone is told."""
    private = folder / "private"
    private.mkdir(mode=0o700)
    monkeypatch.setenv("TMPDIR", str(private))
    for name in ("HOME", "USER", "LOGNAME"):
        monkeypatch.setenv(name, "root's")
    running = start()
    with running.client() as client:
        told = {"HOME": nobody.pw_dir, "USER": "nobody", "LOGNAME": "nobody"}
        assert client.call("environment") == told
    text = f"[WARNING] TMPDIR is {private}, where nobody, the user of the workers, cannot make files"
    assert text in (folder / "it.log").read_text()
    running.signal(signal.SIGTERM)
    running.wait()
    (folder / "it.log").unlink()
    private.chmod(0o777)
    running = start(user="12345", group="23456")
    with running.client() as client:
        assert client.call("environment") == {"HOME": "/", "USER": "12345", "LOGNAME": "12345"}
    assert "TMPDIR" not in (folder / "it.log").read_text()


def test_nothing_of_roots_changes_hands(start, folder, nobody):
    """A log, a pidfile and a socket in a folder of the account's, which puts links there, at the start or later."""
    own = folder / "own"
    own.mkdir()
    os.chown(own, nobody.pw_uid, nobody.pw_gid)
    secret = folder / "secret"
    secret.write_text("root's")
    secret.chmod(0o600)
    running = start(unix_socket=own / "it.sock", pidfile=own / "it.pid", log_file=own / "it.log")
    assert (own / "it.pid").stat().st_uid == 0
    assert (own / "it.sock").stat().st_uid == (own / "it.log").stat().st_uid == nobody.pw_uid
    for name in ("it.sock", "it.pid", "it.log"):
        (own / name).unlink()
        (own / name).symlink_to(secret)
    running.signal(signal.SIGUSR1)
    running.write_config(unix_socket_mode="0666")
    running.run("reload", "--all")
    running.signal(signal.SIGTERM)
    assert running.wait() == 0
    found = secret.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode), secret.read_text()) == (0, 0, 0o600, "root's")
    for name in ("it.sock", "it.pid", "it.log"):
        assert (own / name).is_symlink()
