"""Reloads: staged, committed, given up; nothing of the cluster changes before they have proved themselves."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import setproctitle

from rpccluster import log
from rpccluster.config import Machine, Sources, load
from rpccluster.errors import StartError
from rpccluster.log.handler import DescriptorHandler
from rpccluster.master.changes.reload import Reloading
from rpccluster.master.cluster import Cluster
from rpccluster.master.kinds.groups import Groups
from rpccluster.master.kinds.plugins.plugin import Plugin
from rpccluster.master.phases import Phase
from rpccluster.master.resources.listeners import close_listeners, open_listeners
from rpccluster.master.resources.logs import open_logs

from ..made_up import booting, group, ready

NOW = 50.0


class SavingAtOnce:
    """Writes that end before they return, unless one is held up."""

    def __init__(self) -> None:
        self.failure = ""
        self.is_under_way = False
        self.is_held_up = False
        self.work: Any = None

    def begin(self, work: Any) -> None:
        self.work, self.is_under_way = work, True
        if not self.is_held_up:
            self.end()

    def end(self) -> None:
        self.failure, self.is_under_way = self.work(), False


class Reloadable:
    """A cluster of made-up workers with a real configuration file, real listeners and real logs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write(number_workers=2)
        configuration = load(Sources("x.ini", start_folder=str(folder)), Machine())
        logs = open_logs(configuration.options)
        self.cluster = Cluster(
            configuration,
            generation=1,
            listeners=open_listeners(configuration.options, None, []),
            logs=logs,
            started_at=0.0,
            phase=Phase.RUNNING,
        )
        self.workers = group(ready(0), ready(1), section=self.cluster)
        self.killed: list[Any] = []
        self.told: list[tuple[Any, Any]] = []
        roster: Any = SimpleNamespace(
            kill=lambda worker, reason: self.killed.append((worker, reason)),
            say=lambda worker, *message: self.told.append((worker, *message)),
            tell_of_settings=lambda: None,
        )
        system: Any = SimpleNamespace(
            monotonic=lambda: NOW, set_title=lambda title: None, utc=lambda: datetime(2026, 1, 2, tzinfo=timezone.utc)
        )
        nothing: Any = None
        self.groups = Groups(system, nothing, roster, nothing, {"plugin": Plugin(lambda: NOW)}, [self.workers])
        self.saving = SavingAtOnce()
        self.reloading = Reloading(
            system, self.cluster, self.workers, self.groups, roster, contextlib.nullcontext, self.saving
        )

    def write(self, more: str = "", /, **options: Any) -> None:
        options = {"service": "a:b", "bind": "tcp://127.0.0.1:0", "log_file": self.folder / "log", **options}
        lines = "\n".join(f"{key} = {value}" for key, value in options.items())
        (self.folder / "x.ini").write_text(f"[cluster]\n{lines}\n{more}")

    def stage(self, *, is_all: bool = True, more: str = "", **options: Any) -> None:
        self.write(more, **options)
        self.reloading.begin(is_all=is_all)

    def prove(self) -> None:
        """The first worker of the staged generation gets ready."""
        self.reloading.note_proved(ready(0, edition=self.cluster.staged))

    def snapshot(self) -> Any:
        cluster = self.cluster
        listeners = [(each.wanted, each.socket.fileno()) for each in cluster.listeners]
        return cluster.configuration, cluster.generation, listeners, cluster.logs, self.workers.wanted, cluster.phase

    def candidate(self) -> Any:
        """The first worker of the staged generation, as the supervisor starts it."""
        assert self.cluster.staged is not None
        worker = booting(0, edition=self.cluster.staged)
        self.workers.children.append(worker)
        return worker


@pytest.fixture
def reloadable(tmp_path: Path) -> Iterator[Reloadable]:
    """Its sockets and files are closed at the end; this process's logging and title are as before."""
    root = logging.getLogger()
    level, title = root.level, setproctitle.getproctitle()
    made = Reloadable(tmp_path)
    yield made
    logging.captureWarnings(False)
    root.handlers[:] = [handler for handler in root.handlers if not isinstance(handler, DescriptorHandler)]
    log.logger.write_by(None)
    root.setLevel(level)
    setproctitle.setproctitle(title)
    close_listeners(made.cluster.listeners, is_last=True)
    made.cluster.logs.close()


def open_descriptors() -> list[str]:
    gc.collect()  # lest what an earlier test has left is closed between two looks
    return sorted(os.listdir("/proc/self/fd"))


def test_staging_changes_nothing_yet(reloadable: Reloadable) -> None:
    """The new configuration waits, one generation ahead, for its first worker."""
    before = reloadable.snapshot()
    reloadable.stage(number_workers=5)
    assert reloadable.snapshot() == before
    staged = reloadable.cluster.staged
    assert staged is not None
    assert (staged.generation, staged.configuration.options.number_workers) == (2, 5)
    assert reloadable.reloading.is_under_way
    assert not reloadable.workers.is_rolling


def test_committing_makes_it_the_clusters(reloadable: Reloadable) -> None:
    """Options, generation, number of workers; from now on the older are replaced."""
    listeners = list(reloadable.cluster.listeners)
    reloadable.stage(number_workers=3, timeout=7)
    reloadable.prove()
    cluster, workers = reloadable.cluster, reloadable.workers
    assert (cluster.generation, workers.wanted, cluster.options.timeout) == (2, 3, 7.0)
    assert (workers.is_rolling, workers.rolls_since, cluster.staged) == (True, NOW, None)
    assert cluster.listeners == listeners
    assert reloadable.reloading.is_under_way


def test_it_is_done_when_the_last_old_worker_has_a_successor(reloadable: Reloadable) -> None:
    """Not when the first has."""
    reloadable.stage()
    reloadable.prove()
    workers = reloadable.workers
    workers.wanted = 2
    workers.children[:] = [ready(0, 2), ready(1, 1)]
    reloadable.reloading.note_progress()
    assert (reloadable.reloading.is_under_way, workers.is_rolling) == (True, True)
    workers.children[:] = [ready(0, 2), booting(1, 2)]
    reloadable.reloading.note_progress()
    assert reloadable.reloading.is_under_way
    workers.children[:] = [ready(0, 2), ready(1, 2)]
    reloadable.reloading.note_progress()
    assert (reloadable.reloading.is_under_way, reloadable.reloading.failure, workers.is_rolling) == (False, "", False)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"nope": 1}, "nope: found"),
        ({"number_workers": "many"}, "number_workers: found"),
        ({"user": "no-such-user"}, "user: found"),
        ({"daemonize": "true"}, "daemonize: found true, expected false until the next start: a process goes"),
        ({"bind": "tcp://203.0.113.1:1"}, "cannot listen at tcp://203.0.113.1:1"),
        ({"log_file": "/proc/nope/log"}, "log"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_faulty_configuration_changes_nothing(
    reloadable: Reloadable, caplog: pytest.LogCaptureFixture, options: dict[str, Any], said: str
) -> None:
    """The log says why, the outcome too; nothing is staged, nothing left open."""
    before, descriptors = reloadable.snapshot(), open_descriptors()
    reloadable.stage(**options)
    assert reloadable.snapshot() == before
    assert reloadable.cluster.staged is None
    assert said in reloadable.reloading.failure
    assert any(said in line and line.startswith("Reload failed: ") for line in caplog.messages)
    assert open_descriptors() == descriptors


def test_every_fault_has_a_line_of_its_own(reloadable: Reloadable, caplog: pytest.LogCaptureFixture) -> None:
    """All at once."""
    reloadable.stage(nope=1, backlog="x", timeout=-1)
    assert len([line for line in caplog.messages if line.startswith("Reload failed: ")]) == 3


def test_a_candidate_that_cannot_boot_gives_it_up(reloadable: Reloadable, tmp_path: Path) -> None:
    """What was opened for it is closed, a new Unix path goes, the cluster is as before."""
    before, descriptors = reloadable.snapshot(), open_descriptors()
    reloadable.stage(bind=f"tcp://127.0.0.1:0, unix://{tmp_path}/new.sock", log_file=tmp_path / "new.log")
    assert (tmp_path / "new.sock").exists()
    reloadable.reloading.note_failed_boot(reloadable.candidate(), "ImportError: x")
    assert reloadable.cluster.staged is None
    assert "could not boot: ImportError: x" in reloadable.reloading.failure
    assert reloadable.snapshot() == before
    assert open_descriptors() == descriptors
    assert not (tmp_path / "new.sock").exists()


def test_another_workers_failed_boot_is_not_the_candidates(reloadable: Reloadable) -> None:
    """A restart of the present generation, while a reload is staged."""
    reloadable.stage()
    reloadable.candidate()
    reloadable.reloading.note_failed_boot(booting(1), "x")
    assert reloadable.cluster.staged is not None
    assert reloadable.reloading.is_under_way


def test_a_successor_that_cannot_boot_ends_the_replacing(reloadable: Reloadable) -> None:
    """The rest stay as they are."""
    reloadable.stage()
    reloadable.prove()
    reloadable.workers.children[:] = [ready(0, 2), ready(1, 1)]
    reloadable.reloading.note_failed_boot(booting(1, 2), "ImportError: x")
    assert not reloadable.workers.is_rolling
    assert "the other workers stay as they are: ImportError: x" in reloadable.reloading.failure


def test_a_restart_that_cannot_boot_does_not_end_it(reloadable: Reloadable) -> None:
    """Its slot was empty: it was nobody's successor."""
    reloadable.stage()
    reloadable.prove()
    reloadable.workers.children[:] = [ready(0, 2)]
    reloadable.reloading.note_failed_boot(booting(1, 2), "x")
    assert reloadable.workers.is_rolling


@pytest.mark.parametrize("slot", [1, 2], ids=["a successor", "the first of its slot"])
def test_a_worker_of_the_change_before_does_not_end_the_one_that_has_overtaken_it(
    reloadable: Reloadable, slot: int
) -> None:
    """The later one has yet to prove itself: its first worker must not serve without that."""
    reloadable.stage()
    reloadable.prove()
    reloadable.workers.children[:] = [ready(0, 2), ready(1, 1)]
    reloadable.stage()
    staged = reloadable.cluster.staged
    assert staged is not None
    reloadable.reloading.note_failed_boot(booting(slot, 2), "ImportError: x")
    assert reloadable.cluster.staged is staged
    assert reloadable.reloading.is_under_way


def test_another_reload_overtakes_a_staged_one(reloadable: Reloadable, tmp_path: Path) -> None:
    """The first one's sockets go, and its first worker; the file as it is now counts."""
    descriptors = open_descriptors()
    reloadable.stage(bind=f"tcp://127.0.0.1:0, unix://{tmp_path}/one.sock")
    overtaken = reloadable.candidate()
    reloadable.stage(number_workers=4)
    assert reloadable.killed == [(overtaken, "overtaken by another reload")]
    assert not (tmp_path / "one.sock").exists()
    assert open_descriptors() == descriptors
    staged = reloadable.cluster.staged
    assert staged is not None
    assert (staged.generation, staged.configuration.options.number_workers) == (2, 4)


def test_listeners_are_added_and_dropped_at_the_commit(reloadable: Reloadable, tmp_path: Path) -> None:
    """Not before: callers of a dropped address are served until then."""
    (old,) = reloadable.cluster.listeners
    reloadable.stage(bind=f"unix://{tmp_path}/new.sock")
    assert old.socket.fileno() >= 0
    reloadable.prove()
    (new,) = reloadable.cluster.listeners
    assert old.socket.fileno() == -1
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(f"{tmp_path}/new.sock")
    assert new is not old


def test_logs_change_at_the_commit(reloadable: Reloadable, tmp_path: Path) -> None:
    """The old file is closed then."""
    old = reloadable.cluster.logs
    descriptor = old.log_descriptor
    reloadable.stage(log_file=tmp_path / "new.log", access_log=tmp_path / "access.log")
    assert reloadable.cluster.logs is old
    reloadable.prove()
    assert reloadable.cluster.logs is not old
    assert reloadable.cluster.logs.log_path == str(tmp_path / "new.log")
    assert (tmp_path / "access.log").exists()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


@pytest.mark.parametrize("case", ["drained", "nobody serves"])
def test_without_a_serving_worker_there_is_nothing_to_protect(reloadable: Reloadable, case: str) -> None:
    """It counts at once; a drained cluster runs again."""
    if case == "drained":
        reloadable.cluster.phase = Phase.DRAINED
    else:
        reloadable.workers.children[:] = [booting(0)]
    reloadable.stage(number_workers=4)
    assert (reloadable.cluster.generation, reloadable.workers.wanted) == (2, 4)
    assert reloadable.cluster.phase is Phase.RUNNING


def test_a_reload_of_nothing_replaces_nobody(reloadable: Reloadable) -> None:
    """There is nothing to prove: it is done at once, and the generation stays."""
    reloadable.stage(is_all=False, number_workers=2)
    reloading = reloadable.reloading
    reloading.note_progress()
    assert (reloading.is_under_way, reloading.failure, reloadable.cluster.generation) == (False, "", 1)
    assert reloading.outcome()["plan"]["lines"] == ["kept: 2 processes"]


def test_what_is_live_is_applied_at_once(reloadable: Reloadable) -> None:
    """Without a first worker that proves it; running processes are told."""
    reloadable.stage(is_all=False, number_workers=3, timeout=7, call_timeout=2)
    cluster, workers = reloadable.cluster, reloadable.workers
    assert (cluster.generation, workers.wanted, cluster.options.timeout, cluster.staged) == (1, 3, 7.0, None)
    (_, message), (_, same) = reloadable.told
    assert (message.version, message.options["call_timeout"], message.options["timeout"]) == (2, 2.0, 7.0)
    assert (same, cluster.settings_version) == (message, 2)
    assert reloadable.reloading.is_under_way
    for worker in workers.children:
        reloadable.reloading.pushing.note_switched(worker)
    workers.children.append(ready(2))
    reloadable.reloading.note_progress()
    assert not reloadable.reloading.is_under_way


def test_what_workers_use_is_proved_first(reloadable: Reloadable) -> None:
    """And plugins wait for it."""
    more = "[plugin:x]\nrun = a:b\n"
    reloadable.stage(is_all=False, more=more, number_workers=2, accept_lock=False)
    assert reloadable.cluster.staged is not None
    assert reloadable.groups.named("plugin:x") is None
    reloadable.prove()
    assert reloadable.cluster.generation == 2
    assert reloadable.groups.named("plugin:x") is not None


def test_a_preview_changes_nothing(reloadable: Reloadable) -> None:
    """It tells the plan, or the faults."""
    before, descriptors = reloadable.snapshot(), open_descriptors()
    reloadable.write("[plugin:x]\nrun = a:b\n", number_workers=2, accept_lock=False)
    told = reloadable.reloading.preview(is_all=False)
    assert told["generation"] == 1
    assert told["plan"]["lines"] == [
        "added: plugin:x",
        "changed: workers, accept_lock: true -> false",
        "kept: 0 processes",
    ]
    reloadable.write(nope=1)
    with pytest.raises(StartError, match="nope"):
        reloadable.reloading.preview(is_all=False)
    assert (reloadable.snapshot(), reloadable.cluster.staged, reloadable.reloading.failure) == (before, None, "")
    assert open_descriptors() == descriptors


def test_a_refused_reload_says_why(reloadable: Reloadable, caplog: pytest.LogCaptureFixture) -> None:
    """And changes nothing."""
    before = reloadable.snapshot()
    reloadable.reloading.refuse("the cluster is stopping")
    assert reloadable.reloading.failure == "the cluster is stopping"
    assert caplog.messages == ["Reload failed: the cluster is stopping"]
    assert reloadable.snapshot() == before


@pytest.mark.usefixtures("own_network")
def test_narrowing_an_address_is_one_step(reloadable: Reloadable) -> None:
    """The wide listener stands in the narrow one's way, and leaves when that has proved itself, not before."""
    cluster = reloadable.cluster
    reloadable.stage(bind="tcp://0.0.0.0:0")
    reloadable.candidate()
    reloadable.prove()
    (wide,) = cluster.listeners
    reloadable.stage(bind=f"tcp://127.0.0.1:{wide.actual.port}")
    reloadable.reloading.note_failed_boot(reloadable.candidate(), "sour")
    assert cluster.listeners == [wide]
    assert wide.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    reloadable.stage(bind=f"tcp://127.0.0.1:{wide.actual.port}")
    reloadable.candidate()
    reloadable.prove()
    assert [str(each.actual) for each in cluster.listeners] == [f"tcp://127.0.0.1:{wide.actual.port}"]
    assert wide.socket.fileno() == -1


def test_listeners_that_stay_change_only_with_the_commit(reloadable: Reloadable) -> None:
    """Whatever is given up leaves them as they were."""
    (listener,) = reloadable.cluster.listeners

    def keepalive() -> int:
        return listener.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)

    reloadable.stage(tcp_keepalive=0)
    reloadable.reloading.note_failed_boot(reloadable.candidate(), "sour")
    assert keepalive()
    reloadable.stage(tcp_keepalive=0)
    reloadable.prove()
    assert not keepalive()


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), MemoryError(), RuntimeError("odd")], ids=repr)
def test_whatever_is_raised_in_a_reload_undoes_it(reloadable: Reloadable, error: Exception) -> None:
    """Nothing has changed, nothing stays open, the reason is told."""

    class Present:
        """The present options, which cannot be compared again when all that is new has been opened."""

        asked = 0

        def __getattr__(self, name: str) -> Any:
            self.asked += name == "log_file"
            if self.asked > 1:  # the plan has asked once
                raise error
            return getattr(options, name)

    cluster = reloadable.cluster
    options, present = cluster.options, Present()
    cluster.configuration = replace(cluster.configuration, options=present)  # type: ignore[arg-type]
    before, descriptors = reloadable.snapshot(), open_descriptors()
    reloadable.stage(bind="tcp://127.0.0.1:0, tcp://127.0.0.2:0")
    assert (reloadable.snapshot(), cluster.staged) == (before, None)
    assert open_descriptors() == descriptors
    assert type(error).__name__ in reloadable.reloading.failure


def test_a_reload_that_is_given_up_leaves_no_worker(reloadable: Reloadable) -> None:
    """Else a drain and a command that ends it, in one turn, would let a configuration serve that nothing has proved."""
    reloadable.stage(number_workers=3)
    candidate = reloadable.candidate()
    reloadable.reloading.give_up("overtaken: the cluster is drained")
    assert [worker for worker, _ in reloadable.killed] == [candidate]
    assert (reloadable.cluster.staged, reloadable.cluster.generation) == (None, 1)
