"""The table of docs/threads.md: what a caller gets, and what happens to the work, by the kind of its method."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from worker_killed import WORKER_LOST

import rpccluster
from rpccluster import Client, ConnectionLost, RemoteError
from rpccluster.testing import RunningCluster, is_alive, wait_until
from rpccluster.worker.hot.choice import why_not_compiled

DOCUMENT = Path(rpccluster.__file__).resolve().parent.parent / "docs" / "threads.md"

SERVICE = """
import asyncio
import os
import time
from rpccluster import current_call, rpc

FOLDER = os.path.dirname(os.path.abspath(__file__))


def note(name, text):
    with open(os.path.join(FOLDER, name + ".notes"), "a") as notes:
        notes.write(text + "\\n")


def is_let_go(name):
    return os.path.exists(os.path.join(FOLDER, name))


class observed:
    def __init__(self, name):
        self.name = name

    def __enter__(self):
        note(self.name, f"begun {os.getpid()}")

    def __exit__(self, kind, error, trace):
        call = current_call()  # None in a task process
        how = "told that it is over" if call is not None and call.cancelled else "as if nothing had happened"
        note(self.name, f"interrupted by {kind.__name__}" if kind else f"ended, {how}")


class Kinds:
    def plain(self, name):
        with observed(name):
            while not is_let_go(name):
                time.sleep(0.01)

    @rpc(thread=True)
    def thread(self, name):
        with observed(name):
            while not is_let_go(name):
                time.sleep(0.01)

    async def coroutine(self, name):
        with observed(name):
            while not is_let_go(name):
                await asyncio.sleep(0.01)

    @rpc(pool="pool")
    def pool(self, name):
        with observed(name):
            while not is_let_go(name):
                time.sleep(0.01)


def limited(seconds):
    async def coroutine(self, name):
        await self.coroutine(name)

    def named(kind, function, **options):
        method = rpc(name=f"limited.{kind}.{seconds:g}", timeout=seconds, **options)(function)
        setattr(Kinds, f"limited_{kind}_{round(seconds * 10)}", method)

    named("plain", lambda self, name: self.plain(name))
    named("thread", lambda self, name: self.thread(name), thread=True)
    named("coroutine", coroutine)
    named("pool", lambda self, name: self.pool(name), pool="pool")
"""
#: Seconds; on a slow machine a call may not begin within the shorter ones, and is tried with the next one.
LIMITS = (0.2, 2.0, 20.0)
SERVICE += "".join(f"\n\nlimited({seconds})\n" for seconds in LIMITS)


class Cell(NamedTuple):
    """What the caller gets, and what is noted of the work: at once, or when it was let go; empty if nothing ever is."""

    caller: str
    work: str
    goes_on: bool = False


OVER = "TimeoutError: the call took longer than its limit"
RETIRED = "WorkerRetired: its graceful_timeout is over"
KILLED = "ConnectionLost" if why_not_compiled() else WORKER_LOST
UNAWARE, TOLD = "ended, as if nothing had happened", "ended, told that it is over"

TABLE = {
    ("plain", "time limit"): Cell(OVER, "interrupted by CallTimedOut"),
    ("thread", "time limit"): Cell(OVER, TOLD, goes_on=True),
    ("coroutine", "time limit"): Cell(OVER, "interrupted by CancelledError"),
    ("pool", "time limit"): Cell(OVER, ""),
    ("plain", "retirement"): Cell(RETIRED, "interrupted by WorkerRetired"),
    ("thread", "retirement"): Cell(RETIRED, ""),
    ("coroutine", "retirement"): Cell(RETIRED, "interrupted by CancelledError"),
    ("pool", "retirement"): Cell(RETIRED, ""),
    ("plain", "cancel"): Cell("CancelledError", "interrupted by Cancelled"),
    ("thread", "cancel"): Cell("CancelledError", TOLD, goes_on=True),
    ("coroutine", "cancel"): Cell("CancelledError", "interrupted by CancelledError"),
    ("pool", "cancel"): Cell("CancelledError", ""),
    ("plain", "worker killed"): Cell(KILLED, ""),
    ("thread", "worker killed"): Cell(KILLED, ""),
    ("coroutine", "worker killed"): Cell(KILLED, ""),
    ("pool", "worker killed"): Cell(KILLED, ""),
    ("plain", "disconnect"): Cell("ConnectionLost", UNAWARE, goes_on=True),
    ("thread", "disconnect"): Cell("ConnectionLost", UNAWARE, goes_on=True),
    ("coroutine", "disconnect"): Cell("ConnectionLost", UNAWARE, goes_on=True),
    ("pool", "disconnect"): Cell("ConnectionLost", UNAWARE, goes_on=True),
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    """One cluster of one worker for all cells: each leaves it with a worker that serves."""
    folder = tmp_path_factory.mktemp("kinds")
    (folder / "kinds.py").write_text(SERVICE)
    options = {"service": "kinds:Kinds", "number_workers": 1, "graceful_timeout": 0.3}
    cluster = RunningCluster(folder, options, sections={"pool:pool": {"processes": 1}})
    try:
        yield cluster.start()
    finally:
        cluster.stop()


class Work:
    """A call that has begun, and what its method has noted."""

    def __init__(self, running: RunningCluster, client: Client, method: str, name: str) -> None:
        self.running, self.client, self.name = running, client, name
        self.future: Future[Any] = client.call_async(method, name)
        wait_until(lambda: self.notes() or self.future.done(), what="the call has begun")
        self.has_begun = bool(self.notes())
        self.pid = int(self.notes()[0].split()[1]) if self.has_begun else 0

    def notes(self) -> list[str]:
        """The lines that the method has written."""
        with contextlib.suppress(FileNotFoundError):
            return (self.running.folder / f"{self.name}.notes").read_text().splitlines()
        return []

    def caller_gets(self) -> str:
        """The text of an error that the worker has answered, else the name of the error."""
        try:
            return f"result {self.future.result(60)!r}"
        except RemoteError as error:
            return re.sub(r"[\d.]+ seconds", "its limit", str(error))
        except (CancelledError, ConnectionLost) as error:
            return "CancelledError" if isinstance(error, CancelledError) else "ConnectionLost"

    def let_go(self) -> None:
        """Let the method end, if it still runs."""
        (self.running.folder / self.name).touch()


def begun(running: RunningCluster, client: Client, kind: str, happening: str) -> Work:
    """Make a call that has begun."""
    name = f"{kind}.{happening.replace(' ', '.')}"
    if happening != "time limit":
        return Work(running, client, kind, name)
    tried = (Work(running, client, f"limited.{kind}.{limit:g}", f"{name}.{limit:g}") for limit in LIMITS)
    return next(work for work in tried if work.has_begun)


def _retire(work: Work) -> None:
    work.running.signal(signal.SIGHUP)


def _cancel(work: Work) -> None:
    """The caller is free at once; what the worker does next comes after the cancellation on the same connection."""
    work.future.cancel()
    assert work.client.call("rpc.ping") is not None


HAPPENINGS: dict[str, Callable[[Work], object]] = {
    "time limit": lambda work: None,
    "retirement": _retire,
    "cancel": _cancel,
    "worker killed": lambda work: os.kill(work.running.worker_pids()[0], signal.SIGKILL),
    "disconnect": lambda work: work.client.close(),
}


@pytest.mark.parametrize(("kind", "happening"), TABLE)
def test_a_cell(running: RunningCluster, kind: str, happening: str) -> None:
    """The call has begun; then it happens."""
    expected = TABLE[kind, happening]
    running.wait_ready()
    running.wait_group("pool:pool")
    with running.client() as client:
        client.call("rpc.ping")  # it knows by then that the worker takes cancellations
        work = begun(running, client, kind, happening)
        HAPPENINGS[happening](work)
        assert work.caller_gets() == expected.caller
        if expected.goes_on:
            assert len(work.notes()) == 1
            work.let_go()
        if expected.work:
            wait_until(lambda: len(work.notes()) == 2, what="the work has ended")
            assert work.notes()[1] == expected.work
        else:
            wait_until(lambda: not is_alive(work.pid), what="the work has ended with its process")
            assert len(work.notes()) == 1
        work.let_go()


def table_of_the_document() -> dict[tuple[str, str], str]:
    """Its cells by kind and happening, without marks; *The same* stands for the work of the cell to its left."""
    lines = DOCUMENT.read_text().splitlines()
    head = next(number for number, line in enumerate(lines) if line.startswith("| kind | time limit"))
    columns = [cell.strip() for cell in lines[head].strip("|").split("|")[1:]]
    cells: dict[tuple[str, str], str] = {}
    for line in itertools.takewhile(lambda line: line.startswith("|"), lines[head + 2 :]):
        kind, *texts = (re.sub(r"[*`]", "", cell).strip() for cell in line.strip("|").split("|"))
        before = ""
        for column, text in zip(columns, texts):
            work = text.partition(". ")[2]
            cells[kind.partition(",")[0], column] = text.replace("The same", before)
            before = before if work.startswith("The same") else work
    return cells


def test_the_document_has_the_same_table() -> None:
    """A row for each kind, a column for each happening; each cell has the answer and the end of the work that are
    tried here."""
    told = table_of_the_document()
    assert list(told) == [
        (kind, happening) for kind in ("plain", "thread", "coroutine", "pool") for happening in HAPPENINGS
    ]
    assert told.keys() == TABLE.keys()
    for (kind, happening), cell in TABLE.items():
        text = told[kind, happening]
        answer = {"CancelledError": "Cancelled: …"}.get(cell.caller, re.sub(":.*", ": …", cell.caller))
        assert happening == "disconnect" or text.startswith(answer), text
        assert cell.goes_on == ("goes on" in text), text
        assert (cell.work == TOLD) == ("current_call().cancelled is true" in text), text
        assert cell.work.startswith("interrupted") == ("gets an exception" in text or "is cancelled" in text), text
        is_ended = re.search("killed|cut off with its process|ends with the worker|task is ended", text)
        assert (not cell.work) == bool(is_ended), text
