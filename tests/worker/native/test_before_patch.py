"""asyncio's and uvloop's loops in a native thread of a patched process: what works, and what is refused at once."""

from __future__ import annotations

import functools
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("loop_program.py")
CHECKOUT = PROGRAM.parents[3]

FEATURES = {
    "getaddrinfo": [("127.0.0.1", 80)],
    "getaddrinfo_of_a_name": [80],
    "getnameinfo": True,
    "run_in_executor": 6,
    "an_exception_in_the_executor": 3,
    "to_thread_of_a_patched_sleep": True,
    "to_thread_of_a_sleep_in_c": True,
    "the_loop_goes_on_beside_threads": True,
    "create_subprocess_exec": "cannot start a subprocess from the asyncio loop of a worker",
    "create_subprocess_shell": "cannot start a subprocess from the asyncio loop of a worker",
    "add_signal_handler": "cannot handle a signal in the asyncio loop of a worker",
    "wait_for": "slept",
    "aiohttp": True,
    "sqlite_in_threads": [2 * number for number in range(20)],
    "hashlib_in_threads": 5,
    "a_thousand_at_once": 1000,
    "in_a_forked_child": [
        False,
        "cannot use the asyncio loop of a worker in a child that it has forked",
        "cannot use the executor of a worker in a child that it has forked",
        6,
    ],
    "shutdown_default_executor": True,
}


@functools.cache
def outcomes(kind: str) -> dict[str, str]:
    """What the program prints for each feature; the last ones end what the others need."""
    names = [name for name in FEATURES if importlib.util.find_spec("aiohttp") or name != "aiohttp"]
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", str(PROGRAM), kind, *names],
        cwd=CHECKOUT,
        env={"PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())


@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("kind", ["epoll", "uvloop"])
def test_a_feature(kind: str, feature: str) -> None:
    """Each feature works on both loops, or raises at once."""
    for module in (kind, feature):
        if module in ("uvloop", "aiohttp") and importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    assert outcomes(kind)[feature] == repr(FEATURES[feature])
