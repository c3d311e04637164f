"""The processes a benchmark starts: pinned, watched, and ended by pid whatever happens. Bench process only."""

from __future__ import annotations

import contextlib
import ctypes
import re
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.build import CHECKOUT
from bench.errors import BenchError
from bench.peers import Peer

__all__ = ["CPUTime", "Server", "busy_seconds", "cpu_seconds", "end", "start"]

_LISTENING = re.compile(r"Listening at: \w+://\S+?:(\d+)")
_PR_SET_PDEATHSIG = 1
_CPUCLOCK_SCHED = 2
_NO_WORKERS = ("rpccluster: warden", "rpccluster: master")  # titles; a child has its master's until it has its own
_prctl = ctypes.CDLL(None, use_errno=True).prctl


@dataclass(frozen=True)
class CPUTime:
    """CPU seconds, user and system: of those who serve, and of a master that only watches them."""

    workers: float
    master: float

    def __sub__(self, before: CPUTime) -> CPUTime:
        return CPUTime(self.workers - before.workers, self.master - before.master)


def cpu_seconds(pid: int) -> float:
    """What utime + stime of ``/proc/PID/stat`` say, all threads, but in nanoseconds instead of ticks of 10 ms.

    The clock's number is made as clock_getcpuclockid(3) makes it.
    """
    return time.clock_gettime(~pid << 3 | _CPUCLOCK_SCHED)


def _may_serve(child: psutil.Process) -> bool:
    """Return whether a master's child is a worker."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return not " ".join(child.cmdline()).startswith(_NO_WORKERS)
    return False


def busy_seconds(cpus: Iterable[int]) -> float:
    """CPU seconds that anyone used of these CPUs since boot, in ticks of 10 ms; stolen ones count: proc_stat(5)."""
    times = psutil.cpu_times(percpu=True)
    return sum(sum(times[cpu]) - times[cpu].idle - times[cpu].iowait - times[cpu].guest for cpu in cpus)


def start(command: Sequence[str], cpus: Iterable[int], folder: str = "", **pipes: object) -> subprocess.Popen[str]:
    """Start a process that runs on these CPUs alone and is told to end when this one dies.

    ``folder`` is the checkout that it runs in; empty for this one.
    """
    wanted = sorted(cpus)

    def settle() -> None:
        psutil.Process().cpu_affinity(wanted)  # PyPy has no os.sched_setaffinity
        _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    try:
        return subprocess.Popen(  # type: ignore[call-overload]
            command, cwd=folder or CHECKOUT, text=True, start_new_session=True, preexec_fn=settle, **pipes
        )
    except OSError as error:
        raise BenchError(f"cannot start {command[0]}: {error}") from error


def end(process: subprocess.Popen[str], others: Iterable[psutil.Process] = (), grace_seconds: float = 5.0) -> None:
    """End a process, its descendants, and ``others`` it once had: politely, then by force.

    A process that is gone is never looked up by its pid, which may be another's by now.
    """
    descendants = [*others]
    if process.poll() is None:
        descendants += psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace_seconds)
    if process.poll() is None:
        process.kill()
        process.wait()
    for orphan in psutil.wait_procs(set(descendants), timeout=2)[1]:
        with contextlib.suppress(psutil.NoSuchProcess):
            orphan.kill()


class Server:
    """A peer's server that runs: its port, its workers, what they cost."""

    def __init__(self, peer: Peer, command: Sequence[str], cpus: Iterable[int], log: Path) -> None:
        """Start it and wait until it listens. Raises `BenchError` with its last words when it does not."""
        self._peer = peer
        self._log = log
        self._workers: list[psutil.Process] = []
        with open(log, "w") as output:
            pipes = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT}
            self._process = start(command, cpus, peer.folder, **pipes)
        try:
            self._await(self._has_workers, "did not start its workers")
            self.port = self._await(self._find_port, "did not say where it listens")
            self._workers = [psutil.Process(pid) for pid in self.worker_pids()]
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End it and whatever it started; a second time it does nothing."""
        end(self._process, self._workers)

    @property
    def pid(self) -> int:
        """The process that was started: the master, if there is one."""
        return self._process.pid

    def await_others(self, before: set[int]) -> None:
        """Wait until as many workers serve as there should, and none of those ``before``. Raises `BenchError`."""

        def has_others() -> int:
            return self._has_workers() and not before & set(self.worker_pids())

        self._await(has_others, "did not replace its workers")

    def worker_pids(self) -> list[int]:
        """Those who serve: the master's children but for its warden, or the one process there is."""
        if not self._peer.has_master:
            return [self._process.pid]
        return [child.pid for child in psutil.Process(self._process.pid).children() if _may_serve(child)]

    def cpu(self) -> CPUTime:
        """What was used until now. Take it twice and subtract; no worker may come or go in between."""
        master = cpu_seconds(self._process.pid) if self._peer.has_master else 0.0
        return CPUTime(sum(map(cpu_seconds, self.worker_pids())), master)

    def rss_bytes(self) -> int:
        """Resident memory of those who serve."""
        return sum(int(psutil.Process(pid).memory_info().rss) for pid in self.worker_pids())

    def _await(self, condition: Callable[[], int], complaint: str, patience_seconds: float = 30.0) -> int:
        """Wait until the condition is not 0; that value."""
        give_up_at = time.monotonic() + patience_seconds
        while time.monotonic() < give_up_at:
            value = condition()
            if value:
                return value
            if self._process.poll() is not None:
                raise BenchError(f"{self._peer.name} ended with {self._process.returncode}: {self._last_words()}")
            time.sleep(0.02)
        raise BenchError(f"{self._peer.name} {complaint} within {patience_seconds:g} s: {self._last_words()}")

    def _find_port(self) -> int:
        found = _LISTENING.search(self._log.read_text(errors="replace"))
        return int(found[1]) if found else 0

    def _has_workers(self) -> int:
        return len(self.worker_pids()) == self._peer.workers

    def _last_words(self) -> str:
        return " / ".join(self._log.read_text(errors="replace").splitlines()[-3:]) or "it said nothing"
