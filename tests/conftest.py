"""Fixtures that tests of several folders share. Owns none of them: each lives beside what it makes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from npm_clients import npm_client_example, npm_clients
from old_library import old_library, old_tests, old_twisted
from own_network import own_network

__all__ = [
    "npm_client_example",
    "npm_clients",
    "old_library",
    "old_tests",
    "old_twisted",
    "own_network",
    "runtime_folder",
]


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


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Say which tests belong together, where several processes share them.

    Those that fork, or turn a loop of gevent's, in their own process depend on what that process has done before: they
    keep their order, and come first, since there are many. Those of real daemons do not, and fill up the time.
    """
    for item in items:
        file, folder = item.nodeid.partition("::")[0], item.nodeid.split("/")[1]
        together = {"process": file, "worker": folder, "simulation": folder}.get(folder, "tests")
        item.add_marker(pytest.mark.xdist_group(together))
    if config.getoption("dist", "no") != "no":
        items.sort(key=lambda item: item.nodeid.startswith("tests/process/"))


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
