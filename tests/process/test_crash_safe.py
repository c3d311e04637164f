"""A killed worker costs an error, not a connection: what its connections notice of it with ``crash_safe``."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import pytest
from callers import dial
from hardy_callers import SERVICE, HardyCallers
from killers import Killer
from memory_cgroup import memory_cgroup

from rpccluster.testing import RunningCluster, wait_until
from rpccluster.worker.hot.choice import why_not_compiled

pytestmark = pytest.mark.skipif(bool(why_not_compiled()), reason="the compiled engine alone notes what is needed")

FULL_SCALE = bool(os.environ.get("RPCCLUSTER_FULL_SCALE"))
SECONDS = 60.0 if FULL_SCALE else 3.0
UNIX_KILLS = 1000 if FULL_SCALE else 0
PAUSE_SECONDS = 2.0
TAKEN_MIB = 256


@pytest.fixture
def hardy(
    make_cluster: Callable[..., RunningCluster], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., RunningCluster]:
    """Starts a cluster of workers whose connections outlive them, with the service of `hardy_callers`."""
    monkeypatch.setenv("NOTES_FILE", str(tmp_path / "notes"))

    def start(**options: object) -> RunningCluster:
        running = make_cluster(service="hardy:Notes", crash_safe=True, **options)
        running.write_module("hardy", SERVICE)
        return running.start()

    return start


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("kind", "kills"), [("tcp", 0), ("unix", UNIX_KILLS)])
def test_no_connection_is_lost_with_a_killed_worker(
    hardy: Callable[..., RunningCluster], tmp_path: Path, kind: str, kills: int
) -> None:
    """Each call is answered once; those that a dead worker had begun are lost, and no others."""
    running = hardy(number_workers=4, **({"bind": f"unix://{tmp_path}/s"} if kind == "unix" else {}))
    killer = Killer(running)
    assert running.address.startswith(f"{kind}://")
    with HardyCallers(running.address, connections=40, large_share=0.02) as callers:
        killer.run(SECONDS, kills)
        wait_until(lambda: callers.oldest_pending_seconds() < 1 or callers.faults, what="no call is left to hang")
    print(f"{len(killer.killed)} killed; {callers.answered} calls; {callers.errors}")
    assert len(killer.killed) > SECONDS
    assert callers.faults == []
    assert callers.lost == []
    assert callers.errors.keys() <= {"WorkerLost"}
    callers.assert_each_ran_once(tmp_path / "notes")


CRASHING = """
import os, random, signal
from rpccluster import Service

class Crashing(Service):
    def __init__(self):
        self.file = os.open(os.environ["NOTES_FILE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)

    def pid(self):
        return os.getpid()

    def fork(self):
        "Return the links of the descriptors of a forked child."
        end, other_end = os.pipe()
        pid = os.fork()
        if not pid:
            names = ["/proc/self/fd/" + name for name in os.listdir("/proc/self/fd")]
            links = [os.readlink(name) for name in names if os.path.islink(name)]
            os.write(other_end, "\\n".join(links).encode())
            os._exit(0)
        os.waitpid(pid, 0)
        links = os.read(end, 65_536).decode().split("\\n")
        os.close(end)
        os.close(other_end)
        return links

    def crash(self, how):
        os.write(self.file, b"%d\\n" % how)
        if how == 0:
            os._exit(3)
        while how < 0:
            pass  # until `timeout`
        os.kill(os.getpid(), how)

    def take(self, mib):
        "Take memory, and use it."
        os.write(self.file, b"%d\\n" % mib)
        return len(b"x" * (mib << 20))

    def lie(self, seed):
        "Write whatever it likes into the ledger, and try to change its size; then die."
        random.seed(seed)
        for name in map(str, range(1000)):
            link = f"/proc/self/fd/{name}"
            if os.path.islink(link) and "rpccluster-ledger" in os.readlink(link):
                size = os.fstat(int(name)).st_size
                for wanted in (0, size // 2, 2 * size, 1 << 50):
                    try:
                        os.ftruncate(int(name), wanted)
                    except OSError:
                        pass
                    else:
                        raise AssertionError("the size of the ledger has changed")
                for _ in range(1000):
                    os.pwrite(int(name), random.randbytes(random.choice([1, 8, 64, 5000])), random.randrange(3_000_000))
        os.kill(os.getpid(), signal.SIGKILL)
"""


class Caller:
    """One connection, whose calls are asked one after another."""

    def __init__(self, running: RunningCluster) -> None:
        self.sock = dial(running.address, 30.0)
        self._unpacker = msgpack.Unpacker()
        self._number = 0

    def call(self, method: str, *params: Any) -> Any:
        """Return error and result, or None if the connection has ended."""
        self._number += 1
        try:
            self.sock.sendall(msgpack.packb([0, self._number, method, params]))
            while True:
                for _, msgid, error, result in self._unpacker:
                    assert msgid == self._number
                    return error, result
                data = self.sock.recv(65_536)
                if not data:
                    return None
                self._unpacker.feed(data)
        except ConnectionError:
            return None

    def call_at_once(self, method: str, count: int) -> None:
        """Send so many calls as one piece, and wait for their results."""
        first, self._number = self._number + 1, self._number + count
        self.sock.sendall(b"".join(msgpack.packb([0, each, method, []]) for each in range(first, first + count)))
        answered: list[int] = []
        while len(answered) < count:
            self._unpacker.feed(self.sock.recv(65_536))
            answered += [msgid for _, msgid, error, _ in self._unpacker if error is None]
        assert answered == [*range(first, first + count)]


class Limited(RunningCluster):
    """A cluster whose processes may have 400 descriptors each."""

    def command(self, *arguments: str) -> list[str]:
        return ["sh", "-c", 'ulimit -n 400; exec "$0" "$@"', *super().command(*arguments)]


def test_copies_leave_the_master_descriptors_for_what_else_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many connections outlive their worker as there are copies; and all of them a reload."""
    monkeypatch.setenv("NOTES_FILE", str(tmp_path / "notes"))
    running = Limited(tmp_path, {"crash_safe": True, "number_workers": 2, "service": "crashing:Crashing"})
    running.write_module("crashing", CRASHING)
    with contextlib.ExitStack() as stack:
        stack.callback(running.stop)
        running.start()
        running.wait_log("crash_safe holds for 100 connections of the 20000 that there may be")
        callers = [Caller(running) for _ in range(200)]
        for caller in callers:
            stack.enter_context(caller.sock)
        assert all(caller.call("pid")[0] is None for caller in callers)
        wait_until(  # some are "new" at first
            lambda: sum(worker["uncovered_why"]["descriptors"] for worker in running.status()["workers"]) == 100
        )
        running.wait_log("A connection would end with its worker: this process may hold copies of 100")
        running.signal(signal.SIGHUP)
        running.wait_log("(generation 2)")
        running.wait_ready()
        assert all(caller.call("pid")[0] is None for caller in callers)
        wait_until(lambda: sum(worker["uncovered"] for worker in running.status()["workers"]) == 100)
        victim = max(running.status()["workers"], key=lambda worker: worker["connections"] - worker["uncovered"])
        os.kill(victim["pid"], signal.SIGKILL)
        ended = [caller.call("pid") for caller in callers].count(None)
        assert ended <= victim["uncovered"] < victim["connections"]


@pytest.fixture
def crashing(
    make_cluster: Callable[..., RunningCluster], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> RunningCluster:
    monkeypatch.setenv("NOTES_FILE", str(tmp_path / "notes"))
    running = make_cluster(
        service="crashing:Crashing", crash_safe=True, number_workers=3, restart_delay_max=0, timeout=5
    )
    running.write_module("crashing", CRASHING)
    return running.start()


@pytest.mark.parametrize(
    "how",
    [int(signal.SIGSEGV), int(signal.SIGABRT), int(signal.SIGKILL), 0, -1],
    ids=["a crash", "an abort", "a kill", "an exit", "a hang"],
)
def test_a_method_that_ends_its_worker_costs_its_call_alone(crashing: RunningCluster, tmp_path: Path, how: int) -> None:
    """It does not run again, and all connections go on."""
    callers = [Caller(crashing) for _ in range(6)]
    for caller in callers[: 2 if how >= 0 else 1]:
        error, _ = caller.call("crash", how)
        assert error.startswith("WorkerLost: ")
    assert all(caller.call("pid")[0] is None for caller in callers)
    assert (tmp_path / "notes").read_text().split() == [str(how)] * (2 if how >= 0 else 1)
    for caller in callers:
        caller.sock.close()


def test_a_unix_socket_that_comes_back_to_a_worker_is_counted_anew(
    make_cluster: Callable[..., RunningCluster], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The calls of its first stay are not taken for begun ones when that worker is killed."""
    monkeypatch.setenv("NOTES_FILE", str(tmp_path / "notes"))
    options = {"number_workers": 2, "crash_safe": True, "restart_delay_max": 0, "bind": f"unix://{tmp_path}/s"}
    running = make_cluster(service="crashing:Crashing", **options)
    running.write_module("crashing", CRASHING)
    running.start()
    running.wait_ready()
    keeper, _ = running.worker_pids()
    callers = [Caller(running) for _ in range(8)]
    for _ in range(3):
        for place, caller in enumerate(callers):  # the last ones leave something of what the first ones were noted in
            caller.call_at_once("pid", 60 - 7 * place)
        wait_until(lambda: [each["connections"] for each in running.wait_ready()["workers"]] == [4, 4])
        (other,) = set(running.worker_pids()) - {keeper}
        os.kill(other, signal.SIGKILL)
        assert [caller.call("pid") for caller in callers] == [(None, keeper)] * 8
    os.kill(keeper, signal.SIGKILL)
    assert [caller.call("pid")[0] for caller in callers * 2] == [None] * 16
    for caller in callers:
        caller.sock.close()


def test_a_kill_for_memory_costs_the_call_alone_that_took_it(crashing: RunningCluster, tmp_path: Path) -> None:
    """By the kernel, in a memory cgroup: all connections go on, and nobody is blamed for it."""
    callers = [Caller(crashing) for _ in range(6)]
    (taker, *_), owner = callers, callers[0].call("pid")[1]
    with memory_cgroup(TAKEN_MIB // 2 << 20) as group:
        (group / "cgroup.procs").write_text(str(owner))
        error, _ = taker.call("take", TAKEN_MIB)
        assert error.startswith("WorkerLost: ")
    assert all(caller.call("pid")[0] is None for caller in callers)
    assert (tmp_path / "notes").read_text().split() == [str(TAKEN_MIB)]
    assert owner not in crashing.worker_pids()
    for caller in callers:
        caller.sock.close()


def test_a_connection_at_whose_calls_three_workers_crash_is_not_read_for_a_while(crashing: RunningCluster) -> None:
    """It is told in the log, and goes on after that; the others are served meanwhile."""
    crashing.write_config(restart_delay=0.1, restart_delay_max=PAUSE_SECONDS)
    crashing.signal(signal.SIGHUP)
    crashing.wait_log("(generation 2)")
    crashing.wait_ready()
    caller, other = Caller(crashing), Caller(crashing)
    for _ in range(3):
        assert caller.call("crash", int(signal.SIGSEGV))[0].startswith("WorkerLost: ")
    crashed_at = time.monotonic()
    crashing.wait_log(
        f"for {PAUSE_SECONDS:g} seconds: three workers crashed at its calls within a minute, the last in crash"
    )
    assert other.call("pid")[0] is None
    assert caller.call("pid")[0] is None
    assert time.monotonic() - crashed_at > PAUSE_SECONDS / 2
    for each in (caller, other):
        each.sock.close()


def test_a_worker_that_lies_in_its_ledger_loses_no_others_connection(crashing: RunningCluster) -> None:
    callers = [Caller(crashing) for _ in range(9)]
    owners = {caller: caller.call("pid")[1] for caller in callers}
    liar = callers[0]
    answer = liar.call("lie", 3)
    assert answer is None or answer[0].startswith("WorkerLost: ")
    others = [caller for caller in callers if owners[caller] != owners[liar]]
    assert others
    assert all(caller.call("pid")[0] is None for caller in others)
    wait_until(lambda: len(crashing.wait_ready()["workers"]) == 3)
    for caller in callers:
        caller.sock.close()


def test_the_master_lets_go_of_what_has_ended(crashing: RunningCluster) -> None:
    """Of connections that the client ends, and of those that a worker ends; the peer is told at once."""
    before = len(os.listdir(f"/proc/{crashing.master_pid}/fd"))
    callers = [Caller(crashing) for _ in range(60)]
    assert all(caller.call("pid")[0] is None for caller in callers)
    for caller in callers[:30]:
        caller.sock.close()
    for caller in callers[30:]:
        caller.sock.sendall(b"\xc1 no message")
        assert caller.call("pid") is None
        caller.sock.close()
    wait_until(lambda: len(os.listdir(f"/proc/{crashing.master_pid}/fd")) <= before, what="copies are closed")


def links_of(pid: int) -> list[str]:
    """What the descriptors of a process are."""
    links = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            links.append(os.readlink(f"/proc/{pid}/fd/{name}"))
    return links


def test_a_ledger_that_has_held_much_becomes_small_again(make_cluster: Callable[..., RunningCluster]) -> None:
    """Some seconds after the last large message."""
    running = make_cluster(number_workers=1, crash_safe=True).start()

    def ledger_bytes() -> int:
        descriptors = Path(f"/proc/{running.master_pid}/fd").iterdir()
        return max(each.stat().st_blocks * 512 for each in descriptors if "rpccluster-ledger" in os.readlink(each))

    with running.client() as client:
        value = "x" * (8 << 20)
        assert client.call("echo", value) == value
        wait_until(lambda: ledger_bytes() > 8 << 20, what="the ledger had it")
        wait_until(lambda: ledger_bytes() < 2 << 20, what="the ledger is small")
        with Caller(running).sock as leaving:  # what it has sent is held when memory is given back
            leaving.sendall(msgpack.packb([0, 1, "echo", [value]])[: 4 << 20])
            wait_until(lambda: ledger_bytes() > 4 << 20, what="the ledger has it")
            assert client.call("echo", value) == value
            wait_until(lambda: ledger_bytes() < 6 << 20, what="the ledger has it alone")
        wait_until(lambda: ledger_bytes() < 2 << 20, what="the ledger is small")


def test_neither_ledger_nor_sockets_are_inherited(crashing: RunningCluster) -> None:
    """By a child that the service forks; a worker has no more than its own ledger."""
    callers = [Caller(crashing) for _ in range(6)]
    for caller in callers:
        error, pid = caller.call("pid")
        assert error is None
        error, links = caller.call("fork")
        assert error is None
        assert len(links) > 3
        assert not [link for link in links if "rpccluster-ledger" in link]
        of_worker = links_of(pid)
        assert not {link for link in links if link.startswith("socket:")} & set(of_worker)
        ledgers = {os.stat(f"/proc/{pid}/fd/{name}").st_ino for name in ledgers_of(pid)}
        assert len(ledgers) == 1
    for caller in callers:
        caller.sock.close()


def ledgers_of(pid: int) -> list[str]:
    """The numbers of a process's descriptors of ledgers."""
    names = os.listdir(f"/proc/{pid}/fd")
    return [name for name in names if "rpccluster-ledger" in os.readlink(f"/proc/{pid}/fd/{name}")]


def test_status_tells_that_no_connection_would_end_with_its_worker(
    make_cluster: Callable[..., RunningCluster], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither over TCP, nor at a Unix socket."""
    monkeypatch.setenv("NOTES_FILE", str(tmp_path / "notes"))
    path = tmp_path / "s"
    bind = f"tcp://127.0.0.1:0, unix://{path}"
    running = make_cluster(service="crashing:Crashing", crash_safe=True, number_workers=1, bind=bind)
    running.write_module("crashing", CRASHING)
    running.start()
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            caller = Caller(running)
            stack.enter_context(caller.sock)
            assert caller.call("pid")[0] is None
        wait_until(lambda: counted(running) == (3, 0))
        for _ in range(2):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.connect(str(path))
            sock.sendall(msgpack.packb([0, 1, "pid", []]))
            assert sock.recv(100)
        wait_until(lambda: counted(running) == (5, 0))


def test_status_tells_why_connections_would_end_with_their_worker(
    make_cluster: Callable[..., RunningCluster], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Python engine notes nothing."""
    monkeypatch.setenv("NOTES_FILE", str(tmp_path / "notes"))
    options = {"service": "crashing:Crashing", "crash_safe": True, "number_workers": 1}
    python, compiled = make_cluster(engine="python", **options), make_cluster(**options)
    for running in (python, compiled):
        running.write_module("crashing", CRASHING)
        running.start()
    callers = [Caller(python), Caller(compiled)]
    assert [caller.call("pid")[0] for caller in callers] == [None, None]
    wait_until(lambda: python.status()["workers"][0]["uncovered_why"] == {"python_engine": 1})
    wait_until(lambda: compiled.status()["workers"][0]["uncovered_why"] == {})
    for caller in callers:
        caller.sock.close()


def counted(running: RunningCluster) -> tuple[int, int]:
    """All connections of the one worker, and those that would end with it."""
    (worker,) = running.status()["workers"]
    return worker["connections"], worker["uncovered"]
