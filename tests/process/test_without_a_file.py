"""``rpccluster MODULE:CLASS``: a cluster without a file, commanded without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from rpccluster.testing import is_alive, wait_until

SHOP = """
class Shop:
    def count(self, name):
        return len(name)
"""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `shop.py`, and with a module that nobody but a worker may import from there."""
    (tmp_path / "run").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "run"))
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "shop.py").write_text(SHOP)
    (folder / "click.py").write_text("raise ImportError('imported from the current folder')\n")
    return folder


def program(*words: str) -> list[str]:
    return [sys.executable, "-m", "rpccluster", *words]


@pytest.fixture
def run(shop: Path) -> Run:
    """Runs the program in that folder to its end."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(program(*words), cwd=shop, capture_output=True, text=True, timeout=60, check=False)

    return run


@pytest.fixture
def master(shop: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`rpccluster shop:Shop`, which stops whatever happens."""
    words = program("-b", "127.0.0.1:0", "shop:Shop", "-w", "1")
    with open(shop / "log", "wb") as log:
        process = subprocess.Popen(words, cwd=shop, stderr=log, start_new_session=True)
    wait_until(lambda: "Worker ready" in (shop / "log").read_text(), what="it serves")
    yield process
    process.kill()
    process.wait()


def test_a_class_is_served_at_once(shop: Path, run: Run, master: subprocess.Popen[bytes]) -> None:
    """Started, called, reloaded, upgraded and stopped: each by one command, and no file but the service's own."""
    told = json.loads(run("status", "--json").stdout)["master"]
    assert told["pid"] == master.pid
    (address,) = told["listeners"]
    assert run("call", address, "count", "apple").stdout == "5\n"
    (shop / "shop.py").write_text(SHOP.replace("len(name)", "'changed'"))
    os.utime(shop / "shop.py", (1, 1))  # another second than the bytecode's
    assert run("reload", "--all").stdout == "changed: workers\nkept: 0 processes\ngeneration 2\n"
    assert run("call", address, "count", "apple").stdout == '"changed"\n'
    upgraded = run("upgrade")
    assert upgraded.returncode == 0, upgraded.stderr
    pid = int(upgraded.stdout.split()[1])
    assert master.wait(60) == 0
    assert run("call", address, "count", "apple").stdout == '"changed"\n'
    assert run("stop").returncode == 0
    wait_until(lambda: not is_alive(pid), what="the new master has gone")
    assert run("status").returncode == 3


def test_the_class_may_be_checked(run: Run) -> None:
    """It is loaded from the current folder; one that is not there ends with 4."""
    assert run("--check-config", "shop:Shop").returncode == 0
    missing = run("shop:Shoop", "--check-config")
    assert (missing.returncode, "Shoop" in missing.stderr) == (4, True)
