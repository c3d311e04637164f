"""Promise 5: whatever is wrong is said once, clearly, and changes nothing: neither on a start nor on a HUP."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from programs import free_port

from rpccluster import Client, ConnectFailed, RemoteError
from rpccluster.testing import RunningCluster, wait_until

FAULT, NO_SERVICE = 1, 4
FAR_CPU = 4000
TAKEN = "; another program listens there: stop it, or choose another address"


@dataclass(frozen=True)
class Case:
    """What is changed in a good configuration, and the message it earns.

    ``problem`` follows ``FILE:LINE: KEY: ``; ``{folder}`` stands for the cluster's folder. ``text`` is put at the
    file's end, ``at`` is the key or the line that the fault is about if it is not the one that was changed.
    """

    changes: dict[str, object] = field(default_factory=dict)
    problem: str = ""
    text: str = ""
    at: str = ""

    @property
    def key(self) -> str:
        return self.at or next(iter(self.changes), "")


CASES = {
    "unknown key": Case({"numer_workers": 3}, "found an unknown key, expected an option; did you mean number_workers?"),
    "unknown section": Case(text="[clusters]", at="[clusters]", problem="found an unknown section, expected [cluster]"),
    "no key": Case(text="workers", at="workers", problem="found 'workers', expected KEY = VALUE or [cluster]"),
    "wrong type": Case({"backlog": "many"}, "found 'many', expected a whole number, 1 to 2147483647"),
    "wrong switch": Case({"accept_lock": "maybe"}, "found 'maybe', expected true or false"),
    "too small": Case({"number_workers": 0}, "found '0', expected a whole number, 1 to 512"),
    "too large": Case({"max_depth": 501}, "found '501', expected a whole number, 2 to 500"),
    "no size": Case({"max_memory": "9 hats"}, "found '9 hats', expected a size in bytes such as 16M, 0 or more"),
    "no address": Case({"bind": "localhost"}, "found 'localhost', expected tcp://HOST:PORT, HOST:PORT or unix:///path"),
    "no name": Case({"umask": "%(mask)s"}, "found %(mask)s, expected a name of [DEFAULT] or here"),
    "no service": Case({"service": "demo"}, "found 'demo', expected module:Class or module:object"),
    "contradiction": Case(
        {"access_log": "{folder}/c.log", "log_file": "{folder}/c.log"},
        "found '{folder}/c.log', which is log_file too, expected another path",
    ),
    "folder is a file": Case(
        {"log_file": "{folder}/cluster.ini/x.log"},
        "found '{folder}/cluster.ini/x.log', expected a path in a folder: '{folder}/cluster.ini' is none",
    ),
    "no folder": Case({"chdir": "{folder}/no-such"}, "found '{folder}/no-such', expected a folder that exists"),
    "unknown user": Case(
        {"user": "no-such-user"}, "found 'no-such-user', expected a user of this machine, or a number up to 4294967294"
    ),
    "unknown group": Case({"group": "no-such-group"}, "found 'no-such-group', expected a group of this machine"),
    "far CPU": Case({"cpu_affinity": FAR_CPU}, f"found {FAR_CPU}, expected CPUs this process may run on: "),
    "path of a file": Case({"unix_socket": "/etc/passwd"}, "found '/etc/passwd', which is there and no socket"),
}


def write_ini(made: RunningCluster, case: Case) -> str:
    """Write the configuration file with the case's fault, and return the message it should earn."""
    lines = {key: str(value) for key, value in made.options.items()}
    lines.update({key: str(value).format(folder=made.folder) for key, value in case.changes.items()})
    ini = ["[cluster]", *(f"{key} = {value}" for key, value in lines.items()), *([case.text] if case.text else [])]
    made.config.write_text("\n".join(ini) + "\n")
    number = 1 + next(n for n, line in enumerate(ini) if line == case.key or line.startswith(f"{case.key} = "))
    return f"{made.config}:{number}: {case.key}: " + case.problem.format(folder=made.folder)


@pytest.fixture
def busy_port() -> Iterator[int]:
    """A port that somebody else listens at."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield taken.getsockname()[1]


@pytest.mark.parametrize("name", CASES)
def test_a_faulty_configuration_does_not_start(make_cluster, name):
    """One message with file, line and key, what was found and what was expected; exit code 1; nothing left."""
    made = make_cluster()
    message = write_ini(made, CASES[name])
    done = made.run()
    assert done.returncode == FAULT
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith(message)
    assert done.stdout == ""
    assert not made.left_behind()


def test_all_faults_are_said_at_once(make_cluster):
    """In the file's order, then those of the environment and of the flags."""
    made = make_cluster(number_workers=-1, cpu_affinity=FAR_CPU, timeout="soon", user="no-such-user")
    made.config.write_text(made.config.read_text() + "nonsense = 1\n[other]\n")
    done = made.run("--log-level", "loud")
    assert done.returncode == FAULT
    about = [line.split(": ")[1] for line in done.stderr.splitlines()]
    assert about == ["number_workers", "cpu_affinity", "timeout", "user", "nonsense", "[other]", "log_level"]
    check = made.run("--log-level", "loud", "--check-config")
    assert (check.returncode, check.stderr) == (FAULT, done.stderr)
    assert not made.left_behind()


def test_an_unreadable_file(make_cluster, tmp_path):
    """Missing, a folder, not text: each is said, and is no traceback."""
    made = make_cluster()
    made.config.write_bytes(b"[cluster]\nservice = caf\xe9:It\n")
    done = made.run()
    assert (done.returncode, done.stderr) == (
        FAULT,
        f"{made.config}:2: config: found the byte 0xe9, expected UTF-8 text\n",
    )
    made.config.unlink()
    done = made.run()
    assert done.returncode == FAULT
    assert done.stderr == (f"{made.config}:1: config: cannot read the file: No such file or directory\n")
    made.config.mkdir()
    done = made.run()
    assert done.returncode == FAULT
    assert done.stderr == f"{made.config}:1: config: cannot read the file: Is a directory\n"


def test_contradiction_of_single_instance(make_cluster):
    """``single_instance`` needs a pidfile."""
    made = make_cluster(pidfile=None, single_instance=True)
    done = made.run()
    assert done.returncode == FAULT
    assert "single_instance: found true without a pidfile, expected false or a pidfile" in done.stderr


@pytest.mark.parametrize("flags", [(), ("-D",)], ids=["foreground", "daemon"])
def test_what_cannot_be_listened_at(make_cluster, busy_port, flags):
    """Every busy address is named, a control socket in use as well; what could be had is given back."""
    made = make_cluster(unix_socket_mode="0600")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(made.folder / "taken.sock"))
        other.listen()
        binds = f"127.0.0.1:0, 127.0.0.1:{busy_port}, unix://{made.folder}/free.sock, tcp://192.0.2.1:1"
        made.write_config(bind=binds, control_socket=made.folder / "taken.sock")
        done = made.run(*flags)
    (made.folder / "taken.sock").unlink()
    assert done.returncode == FAULT
    assert done.stderr.splitlines() == [
        f"{made.config}:3: bind: cannot listen at tcp://127.0.0.1:{busy_port}: Address already in use{TAKEN}",
        f"{made.config}:3: bind: cannot listen at tcp://192.0.2.1:1: Cannot assign requested address; "
        "this machine has no such address",
        f"{made.config}:7: control_socket: cannot open the control socket {made.folder}/taken.sock: "
        f"Address already in use{TAKEN}",
    ]
    assert not made.left_behind()


def test_a_host_that_does_not_exist(make_cluster):
    """The resolver's answer is told."""
    made = make_cluster(bind="no-such-host.invalid:80")
    done = made.run()
    assert done.returncode == FAULT
    assert done.stderr.startswith(f"{made.config}:3: bind: cannot listen at tcp://no-such-host.invalid:80: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_folder_that_only_the_kernel_can_write(make_cluster):
    """Where the checks cannot see it, trying does: even root makes nothing in /proc."""
    for key in ("pidfile", "log_file", "access_log", "control_socket", "unix_socket"):
        made = make_cluster(**{key: "/proc/rpccluster/it"})
        done = made.run()
        assert done.returncode == FAULT, key
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert "/proc/rpccluster" in done.stderr
        assert not made.left_behind()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_this_user_may_not_write(make_cluster):
    """The check says it, before anything is touched."""
    made = make_cluster()
    shut = made.folder / "shut"
    shut.mkdir(mode=0o555)
    made.write_config(log_file=shut / "it.log")
    done = made.run()
    assert done.returncode == FAULT
    assert f"expected a path in a folder that this user may write: {str(shut)!r} is none" in done.stderr


class Untouched:
    """A running cluster that no reload may change."""

    def __init__(self, running: RunningCluster) -> None:
        self.running = running
        self.control = running.control()  # one for all: its descriptor counts, too
        self.address, self.workers = running.address, running.worker_pids()
        self.before = wait_until(self.settled)

    def settled(self) -> object:
        """The picture, once the master has noticed that all connections to it but ours are closed."""
        picture, mine, listening = self.picture(), 1, 1
        sockets = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
        known = [line for line in sockets if line[-1] == str(self.running.options["control_socket"])]
        return picture if len(known) == mine + listening else None

    def picture(self) -> object:
        """All that would change if anything was applied."""
        status = self.control.call("status")
        sockets = sorted(str(path) for path in self.running.folder.rglob("*") if path.is_socket())
        master = {key: status["master"][key] for key in ("pid", "state", "generation", "number_workers", "listeners")}
        workers = [(worker["pid"], worker["state"], worker["generation"]) for worker in status["workers"]]
        descriptors = len(os.listdir(f"/proc/{status['master']['pid']}/fd"))
        return master, workers, sockets, descriptors

    def check(self, message: str) -> None:
        """The reload that the control socket asks for fails with ``message``, which the log says, too."""
        with pytest.raises(RemoteError) as raised:
            self.control.call("reload")
        assert message in raised.value.message
        first = next(line for line in raised.value.message.splitlines() if message in line)
        assert f"[ERROR] Reload failed: {first}" in self.running.log_text()
        assert self.picture() == self.before
        with Client(self.address) as client:
            assert client.call("pid") in self.workers


def test_a_faulty_reload_changes_nothing(cluster):
    """On HUP every message of a faulty start goes to the log; the same workers go on."""
    running = cluster()
    untouched = Untouched(running)
    for case in CASES.values():
        untouched.check(write_ini(running, case))
    running.config.unlink()
    untouched.check(f"{running.config}:1: config: cannot read the file: No such file or directory")
    running.write_config(daemonize=True, control_socket=running.folder / "other.sock")
    untouched.check("daemonize: found true, expected false until the next start")
    assert f"found {running.folder}/other.sock, expected {running.folder}/control.sock until the next start" in (
        running.log_text()
    )
    running.options.update(daemonize=False, control_socket=running.folder / "control.sock")
    running.write_config()
    running.signal(signal.SIGHUP)
    running.wait_log("Reloaded the configuration (generation 2)")


def test_a_reload_that_cannot_listen_or_log_changes_nothing(cluster, busy_port):
    """What could be had of the new addresses is given back."""
    running = cluster(number_workers=1)
    untouched = Untouched(running)
    free = f"unix://{running.folder}/free.sock"
    running.write_config(bind=f"{free}, 127.0.0.1:{busy_port}")
    untouched.check(f"{running.config}:3: bind: cannot listen at tcp://127.0.0.1:{busy_port}: Address already in use")
    port = free_port()
    running.write_config(bind=f"{free}, 127.0.0.1:{port}, localhost:{port}")  # which can be bound together
    untouched.check(f"{running.config}:3: bind: cannot listen at tcp://localhost:{port}: Address already in use")
    running.write_config(bind=free, log_file="/proc/rpccluster/it.log")
    untouched.check("cannot open the log /proc/rpccluster")
    running.write_config(bind=free, log_file=running.folder / "other.log", service="json:loads")
    untouched.check("its first worker could not boot: found no public methods")
    running.write_config(service="no_such_module:It")
    untouched.check("its first worker could not boot: cannot load the service 'no_such_module:It': ModuleNotFoundError")
    with pytest.raises(ConnectFailed), Client(free) as client:
        client.call("pid")


def test_commands_reach_a_cluster_whose_file_was_broken_since(cluster):
    """Only what leads to the master must be readable: one can look, and stop; a reload says what is wrong."""
    running = cluster(number_workers=1)
    running.write_config(number_workers="two", nonsense=1)
    assert running.run("status").returncode == 0
    done = running.run("reload")
    assert done.returncode == FAULT
    assert [line.split(": ")[2] for line in done.stderr.splitlines()] == ["number_workers", "nonsense"]
    assert running.run("stop").returncode == 0
    assert running.wait() == 0


def test_a_faulty_command_line(make_cluster):
    """Flags that do not exist, and values that cannot be: exit code 1 or click's 2, and no traceback."""
    made = make_cluster()
    done = made.run("--workers", "none", "--bind", "nowhere")
    assert done.returncode == FAULT
    assert done.stderr.splitlines() == [
        "flag --bind: bind: found 'nowhere', expected tcp://HOST:PORT, HOST:PORT or unix:///path",
        "flag --workers: number_workers: found 'none', expected a whole number, 1 to 512",
    ]
    done = made.run("--wrokers", "3")
    assert done.returncode == 2
    assert "No such option" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_file_the_service_is_missed():
    """``rpccluster`` alone says what it needs."""
    done = subprocess.run([sys.executable, "-m", "rpccluster"], capture_output=True, text=True, check=False)
    assert done.returncode == FAULT
    assert "service: found nothing, expected module:Class or module:object" in done.stderr
