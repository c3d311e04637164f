"""Values that a command writes into the file: at any moment, whatever happens, it is the old one or the new one."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import signal
import stat
import subprocess
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest

from rpccluster import RemoteError, RPCClusterError
from rpccluster.testing import RunningCluster, is_alive, wait_until

FULL_SCALE = bool(os.environ.get("RPCCLUSTER_FULL_SCALE"))
KILLS = 100 if FULL_SCALE else 3

SERVICE = """
import rpccluster

class Shop:
    def price(self):
        return rpccluster.settings["price"]
"""
PADDING = "# a comment that nobody reads\n" * 5000


@pytest.fixture
def shop(make_cluster: Any) -> RunningCluster:
    """Its file is long, has a mode of its own, and is reached by a symbolic link."""
    running: RunningCluster = make_cluster(service="shop:Shop", number_workers=1)
    running.write_module("shop", SERVICE)
    running.write_section("settings", {"price": 1})
    real = running.folder / "real.ini"
    real.write_text(running.config.read_text() + PADDING)
    real.chmod(0o640)
    running.config.unlink()
    running.config.symlink_to("real.ini")
    return running


def _with_price(text: str, old: int, new: int) -> str:
    assert f"price = {old}\n" in text
    return text.replace(f"price = {old}\n", f"price = {new}\n")


def _check(running: RunningCluster) -> None:
    """Mode and symbolic link are as before."""
    assert os.readlink(running.config) == "real.ini"
    assert stat.S_IMODE(running.config.stat().st_mode) == 0o640


def _processes(running: RunningCluster, title: bytes = b"") -> list[int]:
    """Return the processes of a cluster whose titles begin so."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            is_titled = (process / "cmdline").read_bytes().startswith(title)
            if is_titled and os.readlink(process / "cwd") == str(running.folder):
                found.append(int(process.name))
    return found


def _writers(running: RunningCluster) -> list[int]:
    """Return the processes that write for the master."""
    return _processes(running, b"rpccluster: writer")


def _stop(pid: int) -> bool:
    """Stop a process; return whether that was before its end."""
    try:
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED or not is_alive(pid))
        return is_alive(pid)
    except (ProcessLookupError, psutil.NoSuchProcess):
        return False


@pytest.mark.timeout(1800 if FULL_SCALE else 120)
def test_the_writing_process_is_killed(shop: RunningCluster) -> None:
    """Another one goes on: the value is in the file, whole, and in force."""
    shop.start()
    text, price, killed = shop.config.read_text(), 1, 0
    with shop.control() as control:
        for number in range(2, KILLS + 2):
            is_over = threading.Event()

            def kill(is_over: threading.Event = is_over) -> None:
                nonlocal killed
                while not is_over.is_set():
                    for pid in _writers(shop):
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGKILL)
                            killed += 1
                            return

            thread = threading.Thread(target=kill)
            thread.start()
            version = control.call("config.set", {"settings.price": str(number)}, {"write": True})["version"]
            is_over.set()
            thread.join()
            text, price = _with_price(text, price, number), number
            assert (version, shop.config.read_text() == text) == (number, True)
            _check(shop)
    with shop.client() as client:
        assert client.call("price") == str(price)
    assert [each.name for each in shop.folder.iterdir() if each.name.endswith(".new")] == []
    print(f"{killed} of {KILLS} killed in time")


@pytest.mark.timeout(1800 if FULL_SCALE else 120)
def test_the_master_is_killed_while_it_writes(shop: RunningCluster) -> None:
    """The file is whole: the old one or the new one; what is in force after the next start is what it says."""
    text, price = shop.config.read_text(), 1
    for number in range(2, KILLS + 2):
        shop.start()
        master = shop.master_pid
        timer = threading.Timer(random.uniform(0, 0.03), os.kill, (master, signal.SIGKILL))
        with shop.control() as control:
            timer.start()
            was_answered = False
            try:
                control.call("config.set", {"settings.price": str(number)}, {"write": True})
                was_answered = True
            except RPCClusterError:
                pass
        timer.join()
        wait_until(lambda master=master: not is_alive(master))  # type: ignore[misc]
        wait_until(lambda: not _processes(shop))  # a writer that has no title yet goes on, too
        new = _with_price(text, price, number)
        found = shop.config.read_text()
        assert found == new or (found == text and not was_answered)
        text, price = found, number if found == new else price
        _check(shop)
        shop.wait()
    shop.start()
    with shop.client() as client:
        assert client.call("price") == str(price)


def test_a_full_disk_changes_nothing(shop: RunningCluster) -> None:
    """In no process, and not in the file; as soon as there is room it goes."""
    shop.start()
    text = shop.config.read_text()
    unlimited = resource.prlimit(shop.master_pid, resource.RLIMIT_FSIZE)
    resource.prlimit(shop.master_pid, resource.RLIMIT_FSIZE, (len(PADDING) // 2, unlimited[1]))
    with shop.control() as control, shop.client() as client:
        with pytest.raises(RemoteError, match=r"cannot write .*/cluster.ini: File too large"):
            control.call("config.set", {"settings.price": "2"}, {"write": True})
        assert shop.config.read_text() == text
        assert client.call("price") == "1"
        assert shop.status()["master"]["settings"] == {"version": 1}
        assert control.call("config.set", {"settings.price": "3"}) == {"version": 2}  # its history is short
        resource.prlimit(shop.master_pid, resource.RLIMIT_FSIZE, unlimited)
        assert control.call("config.set", {"settings.price": "2"}, {"write": True}) == {"version": 3}
        assert client.call("price") == "2"
    assert shop.config.read_text() == _with_price(text, 1, 2)
    _check(shop)


class ReadOnly(RunningCluster):
    """A cluster that sees the folder ``etc``, which has its configuration, on a read-only file system."""

    def launch(self, *arguments: str, stderr: Any = subprocess.PIPE) -> subprocess.Popen[str]:
        return super().launch(*arguments, stderr=stderr)

    def command(self, *arguments: str) -> list[str]:
        own = super().command(*arguments)
        etc = self.folder / "etc"
        mounted = f'mount --bind "{etc}" "{etc}" && mount -o remount,ro,bind "{etc}" && exec "$0" "$@"'
        return own if arguments else ["unshare", "-m", "sh", "-c", mounted, *own]


def _can_mount() -> bool:
    found = shutil.which("unshare") and shutil.which("mount")
    return bool(found) and subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not _can_mount(), reason="it needs the right to mount")
def test_a_read_only_file_system(tmp_path: Path) -> None:
    """The value can be set for as long as the cluster runs, but not written; one message says why."""
    running = ReadOnly(tmp_path, {"service": "shop:Shop", "number_workers": 1}, sections={"settings": {"price": 1}})
    running.write_module("shop", SERVICE)
    (tmp_path / "etc").mkdir()
    running.config = running.config.rename(tmp_path / "etc" / "cluster.ini")
    try:
        running.start()
        with running.control() as control:
            with pytest.raises(RemoteError, match=r"cannot write .*/etc/cluster.ini: Read-only file system"):
                control.call("config.set", {"settings.price": "2", "call_timeout": "3"}, {"write": True})
            assert running.status()["master"]["settings"] == {"version": 1}
            assert control.call("config.set", {"settings.price": "2", "call_timeout": "3"}) == {"version": 2}
    finally:
        running.stop()


def test_what_cannot_be_written_is_told_with_its_place(shop: RunningCluster) -> None:
    """A value of a flag, one that somebody has changed meanwhile, one that would read back as another."""
    shop.start("--workers", "1")
    with shop.control() as control:
        for changes, told in (
            ({"number_workers": "2"}, "flag --workers: number_workers: found a value that overrides the file"),
            ({"settings.price": "2\n\nx"}, "price: found .*, expected a value that reads back as itself"),
            ({"call_timeout": "soon"}, "config set: call_timeout: found 'soon', expected seconds"),
            ({"pidfile": "/x"}, "pidfile: found /x, expected .* until the next start"),
        ):
            with pytest.raises(RemoteError, match=told):
                control.call("config.set", changes, {"write": True})
        text = shop.config.read_text()
        shop.config.write_text(_with_price(text, 1, 5))
        with pytest.raises(RemoteError, match="price: found '5', expected '1': it has changed since it was read"):
            control.call("config.set", {"settings.price": "2"}, {"write": True})
    assert shop.status()["master"]["settings"] == {"version": 1}


def test_the_loop_does_not_wait_for_a_disk(shop: RunningCluster) -> None:
    """While a writer is stopped the master answers; the change comes when it goes on."""
    shop.start()
    stopped: list[int] = []
    with shop.control() as control, shop.control() as other:
        for number in range(2, 100):
            change = control.call_async("config.set", {"settings.price": str(number)}, {"write": True})
            while not change.done() and not stopped:
                stopped += [pid for pid in _writers(shop) if _stop(pid)]
            if change.done():
                stopped.clear()  # it had told already
                continue
            assert other.call("status")["master"]["settings"] == {"version": number - 1}
            assert not change.done()
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
            assert change.result(30) == {"version": number}
            return
    raise AssertionError("no writer was found at work")
