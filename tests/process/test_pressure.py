"""Out of descriptors: whatever of the master's calls fails, the master and its workers stay, and go on afterwards.

A limit is set on the running master so that exactly so many descriptors can be had, its reserve included: each of
its calls that needs one is the first to fail for some number.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from collections.abc import Iterator

import pytest

from rpccluster import Client
from rpccluster.testing import RunningCluster, is_alive, wait_until


def _open(pid: int) -> dict[int, str]:
    found = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
    return found


@contextlib.contextmanager
def _only(pid: int, number: int) -> Iterator[None]:
    """The process can open so many descriptors, and no more."""
    held = {descriptor for descriptor, what in _open(pid).items() if descriptor < 3 or what != os.devnull}
    limit = [descriptor for descriptor in range(3, 1000) if descriptor not in held][number]
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def _obeys(running: RunningCluster, control: Client, name: str) -> None:
    """Send a signal, and wait until the master has done what it says, or failed to."""
    count = running.log_text().count(f"Handling signal: {name}")
    os.kill(control.call("status")["master"]["pid"], getattr(signal, f"SIG{name.upper()}"))
    wait_until(lambda: running.log_text().count(f"Handling signal: {name}") > count, what=f"{name} is handled")
    assert control.call("rpc.ping") == "pong"


@pytest.fixture(scope="module")
def pressed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    """One cluster for all: nothing here may harm it."""
    folder = tmp_path_factory.mktemp("pressed")
    running = RunningCluster(folder, {"number_workers": 1, "log_file": folder / "cluster.log"})
    yield running.start()
    running.stop()


@pytest.mark.parametrize(
    ("name", "number"),
    [("usr2", 0), ("usr2", 1), ("hup", 0), ("hup", 1), ("hup", 2), ("hup", 4), ("usr1", 0), ("ttin", 0), ("ttin", 3)],
)
def test_a_signal_that_finds_no_descriptor(pressed, name, number):
    """The master stays, with its workers, and goes on when there is room again."""
    before = pressed.wait_ready()
    master = before["master"]["pid"]
    with pressed.client() as client, pressed.control() as control:
        assert (client.call("echo", 1), control.call("rpc.ping")) == (1, "pong")  # both are connected
        with _only(master, number):
            _obeys(pressed, control, name)
            assert client.call("echo", 2) == 2
        assert is_alive(master)
        assert pressed.wait_ready()["master"]["pid"] == master
        assert client.call("echo", 3) == 3
    if name == "ttin":
        pressed.run("scale", "1")


def test_it_can_be_upgraded_out_of_descriptors(pressed):
    """What it has kept back is enough for that."""
    before = pressed.wait_ready()["master"]["pid"]
    with _only(before, 3):  # two ends of a channel, and the memory file of the settings
        os.kill(before, signal.SIGUSR2)
        pressed.wait_log("has taken over")  # without asking it: that takes a descriptor, too
    assert pressed.wait_ready()["master"]["generation"] > 1
