"""What the master counts, in its own row of the file of the counters."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from rpccluster.ipc.fdpass import memory_file
from rpccluster.master.children.child import HUNG
from rpccluster.master.children.deaths import Death
from rpccluster.master.counts import Counts
from rpccluster.master.kinds.restarts import restart_reason
from rpccluster.metrics.layout import LAYOUT, Block
from rpccluster.metrics.totals import Reader
from rpccluster.system import Exit


@pytest.fixture
def file() -> Iterator[int]:
    descriptor = memory_file(name="metrics")
    yield descriptor
    os.close(descriptor)


def test_a_master_goes_on_with_what_the_old_one_has_counted(file: int) -> None:
    old = Counts.begin({LAYOUT: file})
    old.note_restart("workers", "reload")
    old.lose(3)
    new = Counts.begin({LAYOUT: file})
    new.note_restart("workers", "reload")
    new.note_restart("workers", "SIGKILL")
    totals = Reader(file).read()
    assert totals.counts(Block.RESTARTS) == {"workers\nSIGKILL": 1, "workers\nreload": 2}
    assert totals.methods()["other"].outcomes["lost"] == 3


def test_the_versions_of_settings_follow_the_groups(file: int) -> None:
    pid = os.fork()  # whoever reads sees what a living other process shows
    if pid == 0:
        counts = Counts(file)
        counts.show_settings({"workers": 3, "plugin:a": 3})
        counts.show_settings({"workers": 4})
        os.read(os.pipe()[0], 1)
    try:
        reader, versions = Reader(file), {}
        while versions != {"workers": 4}:
            versions = reader.read().settings_versions
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    assert reader.read().settings_versions == {}


def test_without_a_file_nothing_is_counted() -> None:
    counts = Counts()
    counts.note_restart("workers", "reload")
    counts.lose(1)
    counts.show_settings({"workers": 1})
    assert counts.of(SimpleNamespace(others={"metrics": 1})) == -1


def test_workers_count_if_somebody_reads(file: int) -> None:
    counts = Counts(file)
    assert [counts.of(SimpleNamespace(others={name: 1})) for name in ("metrics", "web", "queues")] == [file, file, -1]


def reason(
    *, code: int | None = 0, signum: int | None = None, ready_at: float | None = 1.0, group: Any = None, **more: Any
) -> str:
    """The reason for which a process of slot 0 is replaced."""
    kill_reason = more.pop("kill_reason", "")
    death = Death(Exit(7, code, signum), 0.0, ready_at, 2.0, **more)
    allows = SimpleNamespace(wants_children=True)
    wanted = {"phase": SimpleNamespace(allows=allows), "wants_children": True, "places": 2, "finished": set()}
    group = SimpleNamespace(**{**wanted, **(group or {})})
    child: Any = SimpleNamespace(slot=0, kill_reason=kill_reason)
    return restart_reason(group, child, death)  # type: ignore[arg-type]


def test_reasons_are_few_words() -> None:
    assert reason(reason="max_requests", was_asked=True) == "max_requests"
    assert reason(reason="tcp://127.0.0.1:4711 was bound again", was_asked=True) == "other"
    assert reason(code=None, signum=9) == "SIGKILL"
    assert reason(code=None, signum=200) == "other"
    assert reason(code=None, signum=9, kill_reason=HUNG, was_at_fault=True) == "timeout"
    assert reason(code=3, ready_at=None) == "boot"
    assert reason(code=1) == "exit_code"
    assert reason() == "clean_exit"


def test_an_end_without_a_successor_is_no_restart() -> None:
    assert reason(group={"places": 0}) == ""
    assert reason(group={"finished": {0}}) == ""
    assert reason(group={"wants_children": False}) == ""
    assert reason(group={"phase": SimpleNamespace(allows=SimpleNamespace(wants_children=False))}) == ""
    assert reason(was_at_work=True) == ""
