"""Handing over while processes are killed, stopped and out of descriptors: only what -9 hit is lost, nothing twice."""

from __future__ import annotations

import contextlib
import os
import pwd
import random
import re
import resource
import shutil
import signal
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest
from hardy_callers import SERVICE, HardyCallers
from holding import gate, let_go
from patience import FULL_SCALE, within

from rpccluster.testing import RunningCluster, is_alive, wait_until

KILLS = 100 if FULL_SCALE else 3


@pytest.fixture
def notes(make_cluster, tmp_path, monkeypatch):
    """Makes a cluster whose service writes down each call it runs."""
    monkeypatch.setenv("NOTES_FILE", str(tmp_path / "notes"))

    def make(**options: object) -> RunningCluster:
        running = make_cluster(service="hardy:Notes", **options)
        running.write_module("hardy", SERVICE)
        return running.start()

    return make


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def _stopped(pid: int) -> Iterator[None]:
    """The process stands still, and goes on afterwards unless it has been killed."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def _await_answers(callers: HardyCallers, calls: int = 300) -> None:
    goal = callers.answered + calls
    wait_until(lambda: callers.answered >= goal or callers.faults, 30, f"{calls} calls answered")


def _await_in_transit(running: RunningCluster, donor: int) -> None:
    """Connections wait for an adopter that is stopped, or have done so: another may have them before it is looked."""
    wait_until(
        lambda: running.status()["master"]["in_transit"] > 0 or not running.worker(donor),
        what="connections wait for the stopped",
    )


def _back_to(running: RunningCluster, number: int, callers: HardyCallers) -> list[int]:
    """Scale back, until each connection has been answered by its present owner; the workers' pids by slot."""
    assert running.run("scale", str(number)).returncode == 0
    running.wait_ready(number_workers=number)
    assert running.run("rebalance").returncode == 0
    wait_until(lambda: callers.owners == _served(running) or callers.faults, what="each owner has answered")
    return running.worker_pids()


def _served(running: RunningCluster) -> dict[int, int]:
    """Connections by worker."""
    return {worker["pid"]: worker["connections"] for worker in running.status()["workers"]}


@pytest.mark.timeout(600)
def test_an_adopter_killed_before_it_read_loses_none_of_what_it_was_to_get(notes, tmp_path):
    """What waits in a stopped worker's channel outlives it; only the connections that it served go with it."""
    running = notes(number_workers=3)
    worker_lost = lost = 0
    with HardyCallers(running.address, connections=30) as callers:
        for _ in range(KILLS):
            pids = _back_to(running, 3, callers)
            before = len(callers.lost)
            with _stopped(pids[0]):
                running.signal(signal.SIGTTOU)
                _await_in_transit(running, pids[2])
                _kill(pids[0])
            wait_until(lambda: running.status()["master"]["in_transit"] == 0, what="all have found another")
            _await_answers(callers)
            assert {loss.owner for loss in callers.lost[before:]} <= {pids[0]}
        worker_lost, lost = callers.errors["WorkerLost"], len(callers.lost)
    assert callers.faults == []
    callers.assert_each_ran_once(tmp_path / "notes")
    print(f"{KILLS} adopters killed before reading: {lost} connections of their own lost, {worker_lost} WorkerLost")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("slot", [0, 2], ids=["adopter", "donor"])
def test_a_worker_killed_in_the_middle_takes_only_its_own_with_it(notes, tmp_path, slot):
    """At random moments of a handover: what was acknowledged by others survives, calls left behind get WorkerLost."""
    running = notes(number_workers=3)
    moments = random.Random(5)
    with HardyCallers(running.address, connections=30, slow_share=0.1) as callers:
        for _ in range(KILLS):
            pids = _back_to(running, 3, callers)
            before = len(callers.lost)
            moment = time.monotonic() + moments.random() * 0.02
            running.signal(signal.SIGTTOU)
            while time.monotonic() < moment:
                pass
            _kill(pids[slot])
            _await_answers(callers)
            wait_until(lambda: running.status()["master"]["in_transit"] == 0, what="none is held")
            # an adopter may have acknowledged what it had not answered on: it was the donor's then, pids[2]
            assert {loss.owner for loss in callers.lost[before:]} <= {pids[slot], pids[2]}
    assert callers.faults == []
    callers.assert_each_ran_once(tmp_path / "notes")
    print(f"{KILLS} kills: {len(callers.lost)} connections lost, {dict(callers.errors)}")


STOP_SECONDS = 10.0 if FULL_SCALE else 3.5


@pytest.mark.timeout(120)
def test_what_a_stopped_adopter_has_not_read_is_given_to_another(notes, tmp_path):
    """Within 2 s; and when it goes on there is still one owner of each connection."""
    running = notes(number_workers=3, rebalance=False)
    with HardyCallers(running.address, connections=30, slow_share=0.0) as callers:
        _await_answers(callers)
        pids = running.worker_pids()
        wait_until(lambda: sum(_served(running).values()) == 30, what="status tells of all")
        its_own = running.worker(pids[0])["connections"]
        wanted = {pids[0]: its_own, pids[1]: 30 - its_own}
        with _stopped(pids[0]):
            running.signal(signal.SIGTTOU)
            began = time.monotonic()
            _await_in_transit(running, pids[2])
            wait_until(lambda: running.status()["master"]["in_transit"] == 0, what="all have found another")
            took = time.monotonic() - began
            wait_until(lambda: time.monotonic() - began > STOP_SECONDS, STOP_SECONDS + 1)
            wait_until(lambda: _served(running) == wanted, what="status tells of their owners")
        _await_answers(callers)
        wait_until(lambda: callers.owners == wanted, what="the two answer, each on its own connections")
        assert _served(running) == wanted
    assert took < within(2.0)
    assert (callers.faults, callers.lost, callers.errors) == ([], [], {})
    callers.assert_each_ran_once(tmp_path / "notes")
    print(f"given to another {took:.2f} s after TTOU; stopped {STOP_SECONDS:g} s, worst call {_worst(callers):.2f} s")


def test_a_stopped_donor_holds_up_no_other(notes, tmp_path):
    """Whatever it was granted does not count as on its way."""
    running = notes(number_workers=3)
    with HardyCallers(running.address, connections=210, depth=1, pause=0.01, slow_share=0.0) as callers:
        _await_answers(callers)
        pids = running.worker_pids()
        with _stopped(pids[2]):
            running.signal(signal.SIGTTOU)
            running.wait_log(f"Retiring worker (pid: {pids[2]}, slot: 2)")
            running.signal(signal.SIGTTOU)
            wait_until(lambda: not running.worker(pids[1]), what="the other donor has given all it had")
        running.wait_ready(number_workers=1)
        _await_answers(callers)
    assert (callers.faults, callers.lost, callers.errors) == ([], [], {})
    callers.assert_each_ran_once(tmp_path / "notes")


def test_an_old_master_outlived_by_nobody_ends(held):
    """The new master is killed while the old one's calls still run: those end, and so does it."""
    running = held(number_workers=1)
    host, _, port = running.address.partition("//")[2].rpartition(":")
    with socket.create_connection((host, int(port)), timeout=20) as caller:
        caller.sendall(msgpack.packb([0, 1, "hold", [gate(running)]]))
        wait_until(lambda: running.status()["workers"][0]["active_calls"] == 1, what="it runs")
        assert running.run("upgrade").returncode == 0
        new = running.master_pid
        wait_until(lambda: [worker["adopted"] for worker in running.status()["workers"]] == [1], what="it has moved")
        workers = running.worker_pids()
        _kill(new)
        let_go(running)
        assert running.wait(60) == 0
        with contextlib.suppress(ConnectionResetError):
            assert caller.recv(100) == b""
    wait_until(lambda: not any(is_alive(pid) for pid in (new, *workers)), what="nobody is left")


def _worst(callers: HardyCallers) -> float:
    return max(seconds for _, seconds in callers.latencies)


# -- descriptors


HANDOVERS, UPGRADES = (1000, 20) if FULL_SCALE else (60, 2)


def _descriptors(pid: int) -> list[str]:
    """What each descriptor of a process is."""
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/{pid}/fd/{name}"))
    return found


def _counted(descriptors: list[str]) -> Counter[str]:
    """How many there are of each, without the numbers of sockets, pipes and nameless files."""
    return Counter(sorted(re.split(r"\[|#", each)[0] for each in descriptors))


def _stale_entries(pid: int) -> list[str]:
    """What is in the epoll sets of a process though no descriptor of that number, or another file, is open there."""
    stale = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        if "eventpoll" not in os.readlink(f"/proc/{pid}/fd/{name}"):
            continue
        for line in Path(f"/proc/{pid}/fdinfo/{name}").read_text().splitlines():
            if line.startswith("tfd:"):
                number, inode = re.findall(r"tfd: +(\d+) .*ino:([0-9a-f]+)", line)[0]
                stale += [] if _is_open(pid, int(number), int(inode, 16)) else [line]
    return stale


def _is_open(pid: int, number: int, inode: int) -> bool:
    try:
        return os.stat(f"/proc/{pid}/fd/{number}").st_ino == inode
    except FileNotFoundError:
        return False


_Picture = tuple[Counter[str], list[Counter[str]]]


def _picture(running: RunningCluster) -> _Picture:
    """The descriptors of the master and of each worker, without clients' connections, and what the master shares."""
    status = running.status()
    of_master = _descriptors(status["master"]["pid"])
    shared = set()
    workers = []
    for worker in status["workers"]:
        of_worker = _descriptors(worker["pid"])
        shared |= {each for each in of_worker if each.startswith("socket:")}.intersection(of_master)
        found = _counted(of_worker)
        found["socket:"] -= worker["connections"]
        workers.append(found)
    assert [line for worker in status["workers"] for line in _stale_entries(worker["pid"])] == []
    master = _counted(of_master)
    master["socket:"] -= len(shared)
    return master, workers


def _lasting_picture(running: RunningCluster) -> _Picture:
    """The least of some pictures: a control connection is there for a moment alone."""
    pictures = [_picture(running) for _ in range(8)]
    return min(pictures, key=lambda picture: sum(picture[0].values()) + sum(sum(each.values()) for each in picture[1]))


def _await_picture(running: RunningCluster, wanted: _Picture) -> None:
    seen = []

    def is_as_wanted() -> bool:
        seen.append(_picture(running))
        return seen[-1] == wanted

    with contextlib.suppress(AssertionError):
        wait_until(is_as_wanted)
    assert seen[-1] == wanted


@pytest.mark.timeout(900)
def test_handovers_and_upgrades_leave_no_descriptor_behind(notes, tmp_path):
    """Counts as before in every process, no stale entry in an epoll set, none leaked across exec."""
    running = notes(number_workers=2)
    with HardyCallers(running.address, connections=40, slow_share=0.0) as callers:
        _await_answers(callers)
        before = _lasting_picture(running)
        handed_over = 0
        while handed_over < HANDOVERS:
            assert running.run("reload", "--all").returncode == 0
            running.wait_ready()
            handed_over = running.status()["master"]["handed_over"]
        _await_picture(running, before)
        for _ in range(UPGRADES):
            old = running.master_pid
            assert running.run("upgrade").returncode == 0
            wait_until(lambda old=old: not Path(f"/proc/{old}/fd/0").exists(), what="the old master is gone")
            running.wait_ready()
        _await_answers(callers)
        _await_picture(running, before)
    assert (callers.faults, callers.lost, callers.errors) == ([], [], {})
    callers.assert_each_ran_once(tmp_path / "notes")
    print(f"{handed_over} handovers, {UPGRADES} upgrades, then as before: {before}")


# -- limits


LIMIT, WORKERS, CLIENTS = (1024, 4, 2000) if FULL_SCALE else (192, 4, 250)
RESERVED = 64  # descriptors that a worker keeps from connections


class _Confined(RunningCluster):
    """A cluster, all of it, under a hard limit of descriptors, and as ``user`` if one is named."""

    limit = LIMIT
    user = ""

    def command(self, *arguments: str) -> list[str]:
        """The program, under the limit."""
        become = []
        if self.user:  # who may read our files nevertheless, but may have no more descriptors in flight
            capability = "+dac_read_search"
            account = pwd.getpwnam(self.user)
            become = ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
            become += [f"--inh-caps={capability}", f"--ambient-caps={capability}"]
        return ["sh", "-c", f'ulimit -n {self.limit}; exec "$@"', "sh", *become, *super().command(*arguments)]


@pytest.fixture
def confined(monkeypatch):
    """Makes confined clusters, in a folder of their user's."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    folder = Path(tempfile.mkdtemp(prefix="rpccluster-test-"))
    folder.chmod(0o755)
    monkeypatch.setenv("NOTES_FILE", str(folder / "notes"))
    made = []

    def make(user: str = "", limit: int = LIMIT, **options: object) -> RunningCluster:
        if user:
            shutil.chown(folder, user)
        made.append(_Confined(folder, {"service": "hardy:Notes", "graceful_timeout": 2, **options}))
        made[-1].user, made[-1].limit = user, limit
        made[-1].write_module("hardy", SERVICE)
        return made[-1].start()

    yield make
    for cluster in made:
        cluster.stop()
    shutil.rmtree(folder)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


needs_root = pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="only root can become another")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("user", ["", pytest.param("nobody", marks=needs_root)], ids=["as we are", "as nobody"])
def test_what_cannot_be_placed_stays_served_by_its_donor(confined, user):
    """More connections than one worker may hold: TTOU stays pending, graceful_timeout ends calls, none is lost."""
    running = confined(user, number_workers=WORKERS)
    with HardyCallers(running.address, CLIENTS, depth=1, pause=0.02, slow_share=0.001, slow_seconds=0.2) as callers:
        _await_answers(callers, CLIENTS)
        for _ in range(WORKERS - 1):
            running.signal(signal.SIGTTOU)
            _await_answers(callers, 1)
        wait_until(lambda: _ready_connections(running) >= LIMIT - RESERVED - 1, what="the last worker is full")
        begun = time.monotonic()
        wait_until(lambda: time.monotonic() > begun + 6, 10)  # graceful_timeout, and the slack beyond it
        _await_answers(callers, 2 * CLIENTS)
        status = running.status()
        served = sum(worker["connections"] for worker in status["workers"])
        pending = [worker["connections"] for worker in status["workers"] if worker["state"] == "retiring"]
        assert (status["master"]["number_workers"], status["master"]["in_transit"], served) == (1, 0, CLIENTS)
        assert sum(pending) == CLIENTS - _ready_connections(running)
        assert (callers.faults, callers.lost) == ([], [])
        for _ in range(WORKERS - 1):
            running.signal(signal.SIGTTIN)
        running.wait_ready(number_workers=WORKERS)
        _await_answers(callers, 2 * CLIENTS)
    assert (callers.faults, callers.lost, set(callers.errors) - {"WorkerRetired"}) == ([], [], set())
    callers.assert_each_ran_once(running.folder / "notes")
    print(f"{CLIENTS} connections, limit {LIMIT}, {user or 'root'}: {pending} left to donors; {dict(callers.errors)}")


def _ready_connections(running: RunningCluster) -> int:
    return sum(worker["connections"] for worker in running.status()["workers"] if worker["state"] == "ready")


@needs_root
@pytest.mark.timeout(120)
def test_a_user_with_too_many_descriptors_in_flight_loses_nothing(confined):
    """Its processes are refused, ETOOMANYREFS, until others of the same user are done: they wait, and don't spin."""
    running = confined("nobody", 128, number_workers=2)
    with HardyCallers(running.address, 20, slow_share=0.0) as callers:
        _await_answers(callers)
        with _in_flight("nobody", 400):
            running.signal(signal.SIGHUP)
            running.wait_log("Retiring worker")
            used = _cpu_seconds(running.master_pid)
            begun = time.monotonic()
            wait_until(lambda: time.monotonic() > begun + 1, 5)
            used = _cpu_seconds(running.master_pid) - used
            assert running.status()["master"]["handed_over"] == 0, "nothing was refused: the test shows nothing"
        wait_until(lambda: running.status()["master"]["handed_over"] >= 20, what="all were given after all")
        running.wait_ready()
        _await_answers(callers)
    assert used < 0.5
    assert (callers.faults, callers.lost, callers.errors) == ([], [], {})
    callers.assert_each_ran_once(running.folder / "notes")


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def _in_flight(user: str, number: int) -> Iterator[None]:
    """A process of ``user`` has so many descriptors in flight."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            os.setgid(pwd.getpwnam(user).pw_gid)
            os.setuid(pwd.getpwnam(user).pw_uid)
            one, _other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            for _ in range(number // 100):
                socket.send_fds(one, [b"x"], [0] * 100)
            theirs.send(b"ready")
            signal.pause()
        os._exit(0)
    try:
        theirs.close()
        assert ours.recv(10) == b"ready"
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        ours.close()
