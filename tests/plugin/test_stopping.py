"""Those who wait for the end of a plugin are woken by it, whatever comes between."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from rpccluster.plugin.handle import Stopping
from rpccluster.testing import wait_until


@pytest.fixture
def stopping() -> Iterator[Stopping]:
    made = Stopping()
    before = signal.signal(signal.SIGUSR1, lambda signum, frame: None)
    yield made
    signal.signal(signal.SIGUSR1, before)
    signal.set_wakeup_fd(-1)
    os.close(made._read_end)
    os.close(made._write_end)


def test_a_wait_ends_with_its_time_or_when_it_is_set(stopping: Stopping) -> None:
    """Afterwards it returns at once, to any number."""
    assert not stopping.wait(0)
    assert not stopping.wait(0.01)
    threading.Timer(0.05, stopping.set).start()
    assert stopping.wait()
    assert stopping.wait(60)
    assert stopping.is_set()


def test_a_signal_wakes_it_though_its_handler_has_not_run(stopping: Stopping) -> None:
    """As if it had come just before the wait: the byte of the signal is there, and the handler runs afterwards."""
    stopping.wake_by_signals()
    signal.signal(signal.SIGUSR1, lambda signum, frame: stopping.set())
    begun = time.monotonic()
    os.kill(os.getpid(), signal.SIGUSR1)
    assert stopping.wait(60)
    assert time.monotonic() - begun < 30


def test_another_signal_does_not_end_it(stopping: Stopping) -> None:
    """Nor does it keep the wait busy; many of them lose nothing."""
    stopping.wake_by_signals()
    found: list[bool] = []
    waiting = threading.Thread(target=lambda: found.append(stopping.wait(60)))
    waiting.start()
    for _ in range(100):
        os.kill(os.getpid(), signal.SIGUSR1)
    assert not stopping.wait(0.05)
    assert (found, stopping.is_set()) == ([], False)
    stopping.set()
    wait_until(lambda: found == [True])
    waiting.join()


def test_many_wait(stopping: Stopping) -> None:
    """All are woken, while signals come."""
    stopping.wake_by_signals()
    found: list[bool] = []
    waiting = [threading.Thread(target=lambda: found.append(stopping.wait(60))) for _ in range(8)]
    for each in waiting:
        each.start()
    for _ in range(20):
        os.kill(os.getpid(), signal.SIGUSR1)
    stopping.set()
    for each in waiting:
        each.join(30)
    assert found == [True] * 8
