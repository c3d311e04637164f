"""What viewers are sent: parts that are made once for all, and events that end with the page."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import gevent
import pytest

from rpccluster.ipc.fdpass import memory_file
from rpccluster.services.web.hour import Hour
from rpccluster.services.web.viewing import TURN_SECONDS, Viewing


class SlowOverview:
    """A master that tells nothing, and takes a moment for that; it counts how often it is asked."""

    asked = 0

    def look(self) -> None:
        self.asked += 1
        gevent.sleep(0.01)


class Counted(Viewing):
    """Counts how often the parts are made."""

    made = 0

    def _make(self, known: Any) -> Any:
        self.made += 1
        return super()._make(known)


@pytest.fixture
def viewing() -> Iterator[Counted]:
    file = memory_file(name="hour")
    made = Counted(SlowOverview(), Hour(file))  # type: ignore[arg-type]
    os.close(file)
    yield made
    made.stop()


def test_many_that_come_at_once_have_the_same_parts(viewing: Counted) -> None:
    """Though each waits for the master."""
    looks = [gevent.spawn(viewing.parts) for _ in range(50)]
    gevent.joinall(looks, timeout=20, raise_error=True)
    assert viewing.made == 1
    assert len({id(each.value) for each in looks}) == 1


def test_the_events_end_when_the_page_does(viewing: Counted) -> None:
    """At once, whether anything has changed or not."""
    events = viewing.events()
    assert next(events)
    rest = gevent.spawn(list, events)
    gevent.sleep(0)
    viewing.stop()
    assert rest.get(timeout=TURN_SECONDS + 20) == []
    assert viewing.made == 1
