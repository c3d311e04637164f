"""What viewers of the page are sent: the page's parts, made once a second for all of them, as long as there are any.

Runs in the page's process, on gevent's loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
from gevent.event import Event

from rpccluster.services.web.asking import Known, Overview
from rpccluster.services.web.hour import SAMPLE_SECONDS, Hour, sample_of
from rpccluster.services.web.page.document import Parts, event
from rpccluster.services.web.page.plots import plots
from rpccluster.services.web.page.view import Rates, live, summary

__all__ = ["Viewing"]

TURN_SECONDS = 1.0
BEAT_SECONDS = 4.0  # between two signs of life, if nothing changes
OLD_SECONDS = 5.0
_SILENT = "The master has not told anything yet."


class Viewing:
    """The parts of the page, and the events by which they change. ``start`` also begins to note samples."""

    def __init__(self, overview: Overview, hour: Hour, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock`` returns monotonic seconds."""
        self._overview = overview
        self._hour = hour
        self._clock = clock
        self._made: Parts | None = None
        self._made_at = -TURN_SECONDS
        self._counted: tuple[float, dict[int, int]] = (0.0, {})  # calls by pid, and when
        self._rates = Rates()
        self._plots: tuple[int, str] = (-1, "")  # the number of the sample after which they were drawn
        self._viewers = 0
        self._turned = Event()
        self._is_ending = False
        self._turning: Any = None
        self._sampling: Any = None

    # -- samples

    def start(self) -> None:
        """Begin to note a sample every `SAMPLE_SECONDS`."""
        self._sampling = gevent.spawn(self._sample)

    def stop(self) -> None:
        """Note no more samples, and wake all viewers for their end."""
        for greenlet in (self._sampling, self._turning):
            if greenlet is not None:
                greenlet.kill(block=False)
        self._is_ending = True
        self._turned.set()

    def _sample(self) -> None:
        while True:
            known = self._overview.look()
            if known is not None and self._overview.age(known) < SAMPLE_SECONDS:
                self._hour.note(self._clock(), sample_of(known.status))
            gevent.sleep(SAMPLE_SECONDS - self._clock() % SAMPLE_SECONDS)

    # -- parts

    def parts(self) -> Parts:
        """Return the parts of the page, which are made at most once in `TURN_SECONDS`."""
        if self._is_old():
            known = self._overview.look()
            if self._is_old():  # else another request has made them while this one waited
                self._made, self._made_at = self._make(known), self._clock()
        assert self._made is not None
        return self._made

    def _is_old(self) -> bool:
        return self._made is None or self._clock() - self._made_at >= TURN_SECONDS

    def _make(self, known: Known | None) -> Parts:
        if known is None:
            return Parts(_SILENT, True, "", self._drawn())
        age = self._overview.age(known)
        self._count(known)
        shown = live(known.status, self._rates, known.pools)
        return Parts(summary(known.status, age), age > OLD_SECONDS, shown, self._drawn())

    def _drawn(self) -> str:
        number = int(self._clock() // SAMPLE_SECONDS)
        if self._plots[0] != number:
            self._plots = number, plots(self._hour.samples(self._clock()))
        return self._plots[1]

    def _count(self, known: Known) -> None:
        """Compute the rate of each worker from this status and the one before."""
        at, before = self._counted
        if known.at <= at:
            return
        counts = {worker["pid"]: worker["calls"] for worker in known.status["workers"]}
        seconds = known.at - at
        both = counts.keys() & before.keys()
        self._rates = Rates({pid: max(0, counts[pid] - before[pid]) / seconds for pid in both})
        self._counted = known.at, counts

    # -- events

    def events(self) -> Iterator[bytes]:
        """Yield what a viewer is sent: everything at once, then what has changed, until `stop`."""
        self._viewers += 1
        try:
            self._turning = self._turning or gevent.spawn(self._turn)
            shown, sent_at = self.parts(), self._clock()
            yield b"retry: 1000\n\n" + _changes(None, shown)
            while True:
                self._turned.wait()
                if self._is_ending:
                    return
                now, before, shown = self._clock(), shown, self.parts()
                changes = _changes(before, shown)
                if not changes and now - sent_at >= BEAT_SECONDS:
                    changes = event("beat", None)
                if changes:
                    sent_at = now
                    yield changes
        finally:
            self._viewers -= 1

    def _turn(self) -> None:
        """Make the parts anew every second, and wake all viewers, until there is none."""
        while self._viewers:
            gevent.sleep(TURN_SECONDS)
            self.parts()
            self._turned.set()
            self._turned.clear()
        self._turning = None


def _changes(before: Parts | None, now: Parts) -> bytes:
    found = b""
    if before is None or (before.summary, before.is_old) != (now.summary, now.is_old):
        found += event("summary", [now.summary, now.is_old])
    if before is None or before.live != now.live:
        found += event("live", now.live)
    if before is None or before.plots != now.plots:
        found += event("plots", now.plots)
    return found
