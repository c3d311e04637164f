"""Fixtures that tests of several folders share. Owns none of them: each lives beside what it makes."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from npm_clients import npm_axe, npm_client_example, npm_clients
from old_library import old_library, old_tests, old_twisted
from own_network import own_network

__all__ = [
    "npm_axe",
    "npm_client_example",
    "npm_clients",
    "old_library",
    "old_tests",
    "old_twisted",
    "own_network",
    "runtime_folder",
]

# how fast an example is made or runs is the machine's affair
settings.register_profile("of any speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("of any speed")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what it puts into the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def runtime_folder() -> Iterator[str]:
    """A folder for default control sockets, so that tests and clusters of this machine do not meet."""
    before = os.environ.get("XDG_RUNTIME_DIR")
    with tempfile.TemporaryDirectory(prefix="rpc-", dir="/tmp") as folder:
        os.environ["XDG_RUNTIME_DIR"] = folder
        yield folder
    os.environ.pop("XDG_RUNTIME_DIR")
    if before is not None:
        os.environ["XDG_RUNTIME_DIR"] = before


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Say which tests stay together, where several processes share them; the most come first.

    Those that fork, or turn a loop of gevent's, in their own process depend on what that process has done before: they
    keep their order. Those of real daemons do not, and are shared by their files.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file, folder = nodeid.partition("::")[0], nodeid.split("/")[1]
            return {"process": file, "worker": folder, "simulation": folder}.get(folder, "tests")

    return Together(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Let a report that holds half characters, which a test has logged, leave a process of several that share tests."""
    return _encodable((yield))


def _encodable(value: Any) -> Any:
    """Return a copy of ``value`` whose texts have escapes for what UTF-8 lacks."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {key: _encodable(each) for key, each in value.items()}
    return type(value)(map(_encodable, value)) if isinstance(value, (list, tuple)) else value
