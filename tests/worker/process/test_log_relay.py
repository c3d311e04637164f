"""Log handlers of the service that wait hold nobody up: they are shown our lines by a greenlet of their own."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import gevent
import gevent.event
import pytest

from rpccluster.log.own_logger import OwnLogger
from rpccluster.worker.process.log_relay import MOST_WAITING, LogRelay

from ..rig import settle, until


class Handler(logging.Handler):
    """Waits until the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.may_go_on = gevent.event.Event()
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.may_go_on.wait()
        self.seen.append(record.getMessage())


@pytest.fixture
def log() -> Iterator[Any]:
    """A logger of ours, with a handler of a service, and what it writes itself."""
    log = OwnLogger("ours")
    log.written = []  # type: ignore[attr-defined]
    log.write_by(lambda record: log.written.append(record.getMessage()), logging.INFO)  # type: ignore[attr-defined]
    log.addHandler(Handler())
    yield log
    log.handlers[0].may_go_on.set()  # type: ignore[attr-defined]


def test_who_logs_goes_on_at_once(log: Any) -> None:
    """In the hub as well, where nobody could wait; lines are shown in their order."""
    LogRelay(gevent.get_hub(), log)
    for number in range(3):
        log.info("%d", number)
    gevent.get_hub().loop.run_callback(log.info, "hub")
    until(lambda: log.written == ["0", "1", "2", "hub"])
    assert log.handlers[0].seen == []
    log.handlers[0].may_go_on.set()
    until(lambda: log.handlers[0].seen == log.written)


def test_lines_that_come_too_fast_are_counted(log: Any) -> None:
    """They stand in our log all the same."""
    relay = LogRelay(gevent.get_hub(), log)
    log.info("first")
    settle()
    for number in range(MOST_WAITING + 5):
        log.info("%d", number)
    assert len(log.written) == MOST_WAITING + 6
    log.handlers[0].may_go_on.set()
    relay.finish(20)
    lost = [line for line in log.written if "too slow" in line]
    assert len(lost) == 1
    assert lost[0].endswith("lines did not reach the log handlers of the service, which are too slow")
    assert len(log.handlers[0].seen) + int(lost[0].split()[0]) == MOST_WAITING + 7


def test_the_end_waits_for_it_so_long(log: Any) -> None:
    """And no longer; native threads may log, too."""
    relay = LogRelay(gevent.get_hub(), log)
    gevent.get_hub().threadpool.apply(log.info, ("native",))
    relay.finish(0.02)
    assert log.handlers[0].seen == []
    log.handlers[0].may_go_on.set()
    relay.finish(20)
    assert log.handlers[0].seen == ["native"]
