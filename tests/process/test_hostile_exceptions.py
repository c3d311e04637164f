"""Whatever a method raises or returns is its caller's affair: an error reply, bounded, and the worker goes on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from rpccluster import Client, RemoteError
from rpccluster.testing import RunningCluster, running_cluster, wait_until

SERVICE = r"""
import gevent
from rpccluster import Service

class Mute(Exception):
    def __str__(self): raise SystemExit(7)
    __repr__ = __str__

class Chained(Exception):
    __cause__ = property(lambda self: 1 / 0)

class Nameless(type):
    @property
    def __name__(cls): raise KeyboardInterrupt

class NamelessError(Exception, metaclass=Nameless): pass

class Slow(Exception):
    def __str__(self):
        gevent.sleep(0.01)
        return "slow"

class Items(dict):
    def items(self): raise KeyboardInterrupt

FORGED = "x\n[2026-01-01 00:00:00 +0000] [1] [INFO] forged\x1b[2J\ud800"

def chain(length):
    error = None
    for number in range(length):
        last, error = error, ValueError(number)
        error.__cause__ = last
    return error

RAISED = {
    "SystemExit": lambda: SystemExit(3),
    "KeyboardInterrupt": KeyboardInterrupt,
    "GreenletExit": gevent.GreenletExit,
    "GeneratorExit": GeneratorExit,
    "Timeout": lambda: gevent.Timeout(1),
    "BaseException": lambda: BaseException("base"),
    "MemoryError": MemoryError,
    "StopIteration": StopIteration,
    "Mute": Mute,
    "Chained": lambda: Chained("x"),
    "(an exception whose name cannot be had)": lambda: NamelessError("x"),
    "Slow": Slow,
    "ValueError": lambda: ValueError(FORGED),
    "KeyError": lambda: KeyError("x" * 10_000_000),
    "a\nb": lambda: type("a\nb", (Exception,), {})("x"),
    "Loooong": lambda: type("L" + "o" * 100_000 + "ng", (Exception,), {})("x"),
    "chain": lambda: chain(100_000),
}

class Hostile(Service):
    def fail(self, kind):
        raise RAISED[kind]()

    def recurse(self):
        return self.recurse()

    def fill_memory(self):
        return bytearray(1 << 60)

    def unpackable(self):
        return [object()]

    def endless(self):
        value = []
        value.append(value)
        return value

    def deep(self):
        value = []
        for _ in range(100_000):
            value = [value]
        return value

    def half(self):
        return ["x" * 1000, {1: object()}]

    def interrupting(self):
        return Items(a=1)

    def huge(self):
        return "x" * (17 << 20)

    def surrogate(self):
        return "\ud800"

    def large_number(self):
        return 1 << 64

    def echo(self, value):
        return value
"""

KINDS = re.findall(r'^    "(.+)": ', SERVICE, re.MULTILINE)
LINE = re.compile(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}\] \[\d+\] \[[A-Z]+\] .*")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    """One worker, which must outlive all tests of this module; with an access log."""
    folder: Path = tmp_path_factory.mktemp("hostile")
    (folder / "hostile.py").write_text(SERVICE)
    access_log = folder / "access.log"
    with running_cluster(folder, service="hostile:Hostile", number_workers=1, access_log=access_log) as cluster:
        pid = cluster.worker_pids()
        yield cluster
        assert cluster.worker_pids() == pid


def error_of(client: Client, method: str, *params: object) -> str:
    """The error that a call is answered with; the connection lives on."""
    with pytest.raises(RemoteError) as raised:
        client.call(method, *params)
    assert client.call("echo", [1, "x"]) == [1, "x"]
    return f"{raised.value.type}: {raised.value.message}".lstrip(": ")  # a type that is no name is none


@pytest.mark.parametrize("kind", KINDS)
def test_any_exception_is_an_error_reply(running: RunningCluster, kind: str) -> None:
    """Bounded, whatever its name, text and causes."""
    kind = kind.replace("\\n", "\n")
    with running.client() as client:
        error = error_of(client, "fail", kind)
    name = {"chain": "ValueError", "Loooong": "L" + "o" * 199}.get(kind, kind)
    assert error.startswith(f"{name}: "), error[:300]
    assert len(error) < 10_300


@pytest.mark.parametrize(
    ("method", "error"),
    [
        ("recurse", "RecursionError: "),
        ("fill_memory", "MemoryError: "),
        ("unpackable", "TypeError: "),
        ("endless", "ValueError: "),
        ("deep", "ValueError: "),
        ("half", "TypeError: "),
        ("interrupting", "KeyboardInterrupt: "),
        ("huge", "ResultTooLarge: found a reply of "),
        ("surrogate", "UnicodeEncodeError: "),
        ("large_number", "OverflowError: "),
    ],
)
def test_what_cannot_be_had_or_packed_is_an_error_reply(running: RunningCluster, method: str, error: str) -> None:
    """And leaves nothing in the next reply."""
    with running.client() as client:
        assert error_of(client, method).startswith(error)


def test_notifications_that_raise_harm_nobody(running: RunningCluster) -> None:
    """Nobody is told, the connection goes on."""
    with running.client() as client:
        for kind in KINDS:
            client.notify("fail", kind.replace("\\n", "\n"))
        client.notify("recurse")
        assert client.call("echo", 1) == 1


def test_many_at_once_are_each_answered(running: RunningCluster) -> None:
    """Calls that raise, beside those that do not, on one connection."""
    with running.client() as client:
        failing = [client.call_async("fail", KINDS[number % 6]) for number in range(300)]
        echoing = [client.call_async("echo", number) for number in range(300)]
        assert all(isinstance(future.exception(30), RemoteError) for future in failing)
        assert [future.result(30) for future in echoing] == list(range(300))


def test_the_logs_keep_their_form(running: RunningCluster) -> None:
    """No line is forged or endless, and none holds a control character."""
    with running.client() as client:
        for kind in KINDS:
            error_of(client, "fail", kind.replace("\\n", "\n"))
        for name in ("no\nsuch\x1b[2J", "x" * 100_000, "\udcff"):
            with pytest.raises(RemoteError):
                client.call(name)
    access_log = Path(str(running.options["access_log"]))
    wait_until(lambda: access_log.read_text().count(" fail ") >= len(KINDS))
    for path in (running.log, access_log):
        lines = path.read_text().splitlines()
        assert all(len(line) < 1_200 and line.isprintable() for line in lines)
        assert not any("forged" in line for line in lines if LINE.match(line) and " [1] [INFO]" in line[:50])
    assert all(re.match(r"\[[^]]+\] \[\d+\] 127\.0\.0\.1:\d+ [\w.]+ [\d.]+ms ", line) for line in lines)
