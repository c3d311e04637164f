"""The tools that tests of services use: waiting for a condition, and for how long."""

from __future__ import annotations

import os
import subprocess
import time

import pytest

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
