"""What the master is asked, and the last ``status`` that it told. Runs in the page's process, on gevent's loop.

However many want to see the status, the master is asked about once a second: all that want it meanwhile get the same.
If the master does not answer, the last answer stays, and its age is told with it.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import gevent
from gevent.event import AsyncResult

from rpccluster.ipc.messages import AskMaster, MasterTold, Message

__all__ = ["Asking", "Known", "MasterRefused", "Overview"]

ANSWER_SECONDS = 2.0  # for what the master knows at once
FRESH_SECONDS = 1.0


class MasterRefused(Exception):
    """The master has answered with an error, or not at all."""


class Asking:
    """The questions to the master that wait for an answer."""

    def __init__(self, say: Callable[[Message], object], serial: int) -> None:
        """``say`` sends a message to the master, which knows this process by ``serial``."""
        self._say = say
        self._serial = serial
        self._numbers = itertools.count(1)
        self._waiting: dict[int, AsyncResult] = {}

    def ask(self, method: str, params: list[Any], seconds: float = ANSWER_SECONDS) -> Any:
        """Return the master's answer. Raises `MasterRefused` with its error, or if it is silent for ``seconds``."""
        number, told = next(self._numbers), AsyncResult()
        self._waiting[number] = told
        self._say(AskMaster(number, self._serial, method, params))
        try:
            error, value = told.get(timeout=seconds)
        except gevent.Timeout:
            raise MasterRefused(f"the master has not answered for {seconds:g} seconds") from None
        finally:
            del self._waiting[number]
        if error:
            raise MasterRefused(error)
        return value

    def hear(self, message: MasterTold) -> None:
        """Take an answer; nobody may want it any more."""
        told = self._waiting.get(message.number)
        if told is not None:
            told.set((message.error, message.value))


class Known(NamedTuple):
    """What was told last: ``status``, the pools, and when (monotonic seconds)."""

    status: dict[str, Any]
    pools: list[dict[str, Any]]
    at: float


class Overview:
    """The last ``status``, asked for again when it is not fresh any more."""

    def __init__(self, ask: Callable[[str, list[Any]], Any], clock: Callable[[], float] = time.monotonic) -> None:
        """``ask`` asks the master; ``clock`` returns monotonic seconds."""
        self._ask = ask
        self._clock = clock
        self._known: Known | None = None
        self._asks: Any = None  # the greenlet that does

    def look(self, fresh_seconds: float = FRESH_SECONDS, wait_seconds: float = ANSWER_SECONDS) -> Known | None:
        """Return what is known, not older than ``fresh_seconds`` if the master answers; None if it never has."""
        known = self._known
        if known is not None and self._clock() - known.at < fresh_seconds:
            return known
        if self._asks is None:
            self._asks = gevent.spawn(self._renew)
        self._asks.join(wait_seconds)
        return self._known

    def _renew(self) -> None:
        try:
            at = self._clock()
            status = self._ask("status", [])
            has_pools = any(group["kind"] == "task" for group in status["groups"])
            self._known = Known(status, self._pools() if has_pools else [], at)
        except MasterRefused:
            pass  # the age of what is known says so
        finally:
            self._asks = None

    def _pools(self) -> list[dict[str, Any]]:
        try:
            pools: list[dict[str, Any]] = self._ask("pool.list", [])
            return pools
        except MasterRefused:
            return []

    def age(self, known: Known) -> float:
        """Return how many seconds ago ``known`` was told."""
        return max(0.0, self._clock() - known.at)
