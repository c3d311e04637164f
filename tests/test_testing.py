"""The tools that tests of services use: waiting for a condition, and for how long."""

from __future__ import annotations

import os
import subprocess
import time

import pytest

from rpccluster.errors import ConnectionLost
from rpccluster.testing import is_alive, title_of, wait_until


def test_waiting_returns_what_was_found() -> None:
    """As soon as it is true, without a sleep if it is so already."""
    found = iter([None, 0, "", "here"])
    assert wait_until(lambda: next(found), 10) == "here"
    began = time.monotonic()
    assert wait_until(lambda: 5, 0) == 5
    assert time.monotonic() - began < 15


def test_waiting_in_vain_says_for_what() -> None:
    """And how long it took."""
    with pytest.raises(AssertionError, match=r"not so after 0\.05 seconds: the moon is blue"):
        wait_until(lambda: False, 0.05, "the moon is blue")


def test_a_condition_that_cannot_be_asked_yet_is_not_true_yet() -> None:
    """What goes at that moment or is not there yet may come; an error that stays is told, others are raised at once."""
    faults = iter([ConnectionLost("it went"), ProcessLookupError(), FileNotFoundError(), KeyError("row"), IndexError()])

    def found() -> str:
        for fault in faults:
            raise fault
        return "here"

    def missing() -> int:
        return dict[str, int]()["row"]

    assert wait_until(found) == "here"
    with pytest.raises(AssertionError, match="not so after 0 seconds") as told:
        wait_until(missing, 0.0)
    assert isinstance(told.value.__cause__, KeyError)
    with pytest.raises(ZeroDivisionError):
        wait_until(lambda: 1 // 0)


def test_a_condition_is_asked_once_more_after_its_time() -> None:
    """The process of tests may have been held up for all of it, as here by the condition itself."""
    answers = iter(["", "it has come"])

    def held_up() -> str:
        time.sleep(0.1)
        return next(answers)

    assert wait_until(held_up, 0.01) == "it has come"


def test_a_zombie_is_not_alive() -> None:
    """It has ended; only its parent has not looked yet."""
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            assert is_alive(process.pid)
            wait_until(lambda: title_of(process.pid) == "sleep 60", 10)
        finally:
            process.kill()
        wait_until(lambda: not is_alive(process.pid), 10)
    assert not is_alive(process.pid)
    assert is_alive(os.getpid())
