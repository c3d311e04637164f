"""Several clusters that agree on who leads, and callers that note what each call of the leader did. Tests only."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

from rpccluster.errors import RPCClusterError
from rpccluster.testing import RunningCluster, is_alive, wait_until

__all__ = ["SESSION_SECONDS", "Callers", "Company", "pids_of"]

SESSION_SECONDS = 2.0  # the least that may be configured

SERVICE = """
import fcntl
import os
import time

import rpccluster
from rpccluster import leadership, rpc

LEDGER = {ledger!r}


class Service:
    @rpc(leader_only=True)
    def write(self, pause=0.0):
        '''Write the token to a ledger that takes no older one behind a newer one, some time after the check.'''
        began, token = time.monotonic_ns(), leadership.token
        with open(LEDGER + ".begins", "ab", buffering=0) as begins:
            begins.write(f"{{token}} {{began}}\\n".encode())
        time.sleep(pause)
        with open(LEDGER, "a+b", buffering=0) as ledger:
            fcntl.flock(ledger, fcntl.LOCK_EX)
            ledger.seek(max(0, ledger.seek(0, os.SEEK_END) - 100))
            last = max([int(line.split()[0]) for line in ledger.read().splitlines()[-1:]], default=0)
            if last > token:
                return [token, False]
            ledger.write(f"{{token}} {{began}}\\n".encode())
        return [token, True]

    @rpc(leader_only=True)
    def lead(self, value=None):
        return value

    @rpc(leader_only=True)
    def lead_for(self, seconds):
        time.sleep(seconds)
        return seconds

    def look(self):
        return [leadership.is_leader, leadership.token]

    def check(self):
        leadership.check()

    def pid(self):
        return os.getpid()
"""


class Company:
    """Clusters in folders beside each other, at one store."""

    def __init__(self, folder: Path, store: str, count: int = 3, **options: Any) -> None:
        """``options`` are keys of ``[cluster]``, and of ``[leadership]`` if they begin with ``lead_``."""
        self.ledger = folder / "ledger"
        self.clusters: list[RunningCluster] = []
        own = {key[len("lead_") :]: value for key, value in options.items() if key.startswith("lead_")}
        others = {key: value for key, value in options.items() if not key.startswith("lead_")}
        for number in range(count):
            home = folder / f"cluster{number}"
            home.mkdir()
            bind = {"bind": f"unix://{home}/service.sock", "number_workers": 1, "service": "leading_service:Service"}
            section = {"engine": store, "session_timeout": SESSION_SECONDS, **own}
            cluster = RunningCluster(home, {**bind, **others}, sections={"leadership": section})
            cluster.write_module("leading_service", SERVICE.format(ledger=str(self.ledger)))
            self.clusters.append(cluster)

    def start(self) -> Company:
        """Start all, and wait until one leads and all know it."""
        for cluster in self.clusters:
            cluster.start()
        self.leader()
        return self

    def stop(self) -> None:
        """End all."""
        for cluster in self.clusters:
            with contextlib.suppress(RPCClusterError, OSError):
                for pid in pids_of(cluster):
                    os.kill(pid, signal.SIGCONT)
            cluster.stop()

    def leader(self, besides: RunningCluster | None = None, seconds: float = 30.0) -> RunningCluster:
        """Wait until one leads, another one than ``besides``, and return it."""

        def found() -> RunningCluster | None:
            for cluster in self.clusters:
                if cluster is not besides and told(cluster).get("is_leader"):
                    return cluster
            return None

        return wait_until(found, seconds, "a cluster leads")

    def token(self) -> int:
        """The token of the cluster that leads."""
        return int(told(self.leader())["token"])


def told(cluster: RunningCluster) -> dict[str, Any]:
    """What a cluster says of the lead; nothing if it does not answer."""
    with contextlib.suppress(RPCClusterError, OSError), cluster.control(1.0) as control:
        answer: dict[str, Any] = control.call("leader.show")
        return answer
    return {}


def pids_of(cluster: RunningCluster, *groups: str) -> list[int]:
    """The processes of a cluster: its master's, or those of the named groups."""
    status = cluster.status()
    if not groups:
        return [status["master"]["pid"], *_pids(status, [group["name"] for group in status["groups"]])]
    return _pids(status, groups)


def _pids(status: dict[str, Any], groups: Any) -> list[int]:
    found = [each["pid"] for group in status["groups"] if group["name"] in groups for each in group["processes"]]
    return [pid for pid in found if pid is not None and is_alive(pid)]


class Callers:
    """A thread for each cluster, which calls ``write`` there again and again, and notes what came when."""

    def __init__(self, company: Company, pause_seconds: float = 0.003) -> None:
        self.replies: list[tuple[int, int, bool]] = []  # when, token, whether the ledger took it
        self.errors: dict[str, int] = {}
        self._pause = pause_seconds
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(each,)) for each in company.clusters]
        self._ledger = company.ledger

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(60)

    def _call(self, cluster: RunningCluster) -> None:
        with cluster.client(timeout=60) as client:
            while not self._is_over.wait(self._pause):
                try:
                    token, taken = client.call("write")
                except RPCClusterError as error:
                    name = getattr(error, "type", "") or type(error).__name__
                    self.errors[name] = self.errors.get(name, 0) + 1
                else:
                    self.replies.append((time.monotonic_ns(), token, taken))

    def check(self) -> dict[str, int]:
        """Assert that nothing of an older lead happened after the first call of a newer one; return counts."""
        lines = [tuple(map(int, line.split())) for line in self._ledger.read_text().splitlines()]
        begins = [tuple(map(int, line.split())) for line in Path(f"{self._ledger}.begins").read_text().splitlines()]
        tokens = [token for token, _ in lines]
        assert tokens == sorted(tokens), "an older line stands behind a newer one"
        first: dict[int, int] = {}
        for token, began in begins:
            first[token] = min(began, first.get(token, began))
        ends = {token: min((at for newer, at in first.items() if newer > token), default=None) for token in first}
        for token, began in begins:
            assert token > 0, "a call began without a lead"
            end = ends[token]
            assert end is None or began < end, f"a call of the lead {token} began after one of a newer lead"
        for at, token, _ in self.replies:
            end = ends[token]
            assert end is None or at < end, f"a reply of the lead {token} left after a call of a newer lead"
        refused = sum(not taken for _, _, taken in self.replies)
        return {"calls": len(begins), "leads": len(first), "refused": len(begins) - len(lines), "told": refused}
