"""What the master holds of a task process, and a program's own pool, as the shared test handles them."""

from __future__ import annotations

import contextlib
from array import array
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from types import SimpleNamespace
from typing import Any
from unittest import mock

from rpccluster import TaskPool
from rpccluster.config.sections.pool import PoolOptions
from rpccluster.ipc.channel import channel_pair
from rpccluster.ipc.scoreboard import ROW_CELLS, Row
from rpccluster.live_settings import NO_SETTINGS
from rpccluster.master.children.child import Birth
from rpccluster.master.kinds.tasks.process import TaskProcess
from rpccluster.system.clock import Timer

from .part import SECONDS, Part

__all__ = ["TASK_PARTS"]


class ATimer(Part):
    """Set to a moment that is over."""

    timer: Timer | None = None

    def start(self) -> None:
        self.timer = Timer()
        self.timer.set(1)
        self.timer.drain()

    def stop(self) -> None:
        if self.timer is not None:
            self.timer.close()

    def is_stopped(self) -> bool:
        return self.timer is None or self.timer.is_closed


class ATaskProcess(Part):
    """That nobody has forked."""

    process: TaskProcess | None = None

    def start(self) -> None:
        edition: Any = SimpleNamespace(generation=1, options=PoolOptions(), settings=NO_SETTINGS)
        row = Row(memoryview(array("Q", [0] * ROW_CELLS)))
        channel, far_end = channel_pair()
        far_end.close()
        try:
            self.process = TaskProcess(Birth(0, 1, edition, 0, row, channel, [0], 0.0), "a")
        except OSError:
            channel.close()
            raise

    def stop(self) -> None:
        if self.process is not None:
            self.process.close()

    def failures(self) -> Mapping[str, Callable[[], AbstractContextManager[object]]]:
        return {"no pipe": _no_pipe}


@contextlib.contextmanager
def _no_pipe() -> Iterator[None]:
    with mock.patch("os.pipe2", side_effect=OSError("no room")):
        yield


class ATaskPool(Part):
    """Of one process."""

    is_slow = True
    pool: TaskPool | None = None

    def start(self) -> None:
        self.pool = TaskPool(1, ["operator"])
        assert self.pool.submit("operator:neg", 1).result(SECONDS) == -1

    def stop(self) -> None:
        if self.pool is not None:
            self.pool.terminate()

    def is_stopped(self) -> bool:
        if self.pool is None:
            return True
        with contextlib.suppress(RuntimeError):
            self.pool.submit("operator:neg", 1)
            return False
        return True

    def failures(self) -> Mapping[str, Callable[[], AbstractContextManager[object]]]:
        return {"no process": _no_process, "no thread": _no_thread}


@contextlib.contextmanager
def _no_process() -> Iterator[None]:
    with mock.patch("subprocess.Popen", side_effect=OSError("no room")):
        yield


@contextlib.contextmanager
def _no_thread() -> Iterator[None]:
    with mock.patch("threading.Thread.start", side_effect=RuntimeError("no room")):
        yield


TASK_PARTS: list[type[Part]] = [ATimer, ATaskProcess, ATaskPool]
