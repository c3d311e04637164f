"""Who may import whom: the contracts of pyproject.toml, and what a master really loads."""

from __future__ import annotations

import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import rpccluster.master

CHECKOUT = Path(rpccluster.__file__).resolve().parent.parent


def test_the_contracts_of_imports_hold(tmp_path: Path) -> None:
    """Downwards only, gevent in the worker alone, no I/O in the protocol: see [tool.importlinter]."""
    pytest.importorskip("importlinter", reason="import-linter is installed on CPython 3.10 and newer")
    program = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_broken_contract_is_noticed(tmp_path: Path) -> None:
    """The same contracts on a copy where the master imports gevent, the protocol a module of the master, and a
    connection's module one of the hot room."""
    pytest.importorskip("importlinter", reason="import-linter is installed on CPython 3.10 and newer")
    package = tmp_path / "rpccluster"
    for file in CHECKOUT.glob("rpccluster/**/*.py"):
        copy = package / file.relative_to(CHECKOUT / "rpccluster")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(file.read_text())
    with open(package / "master" / "loop.py", "a") as loop:
        loop.write("import gevent\n")
    with open(package / "protocol" / "codec.py", "a") as codec:
        codec.write("import rpccluster.master.loop\n")
    with open(package / "worker" / "connections" / "table.py", "a") as table:
        table.write("import rpccluster.worker.hot.room\n")
    (tmp_path / "pyproject.toml").write_text((CHECKOUT / "pyproject.toml").read_text())
    program = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "rpccluster.master.loop -> gevent" in done.stdout
    assert "rpccluster.protocol.codec -> rpccluster.master.loop" in done.stdout
    assert "rpccluster.worker.connections.table -> rpccluster.worker.hot.room" in done.stdout


def test_a_master_loads_no_gevent() -> None:
    """Nor its greenlets, nor a thread: everything it consists of, in a fresh process."""
    masters = [module.name for module in pkgutil.walk_packages(rpccluster.master.__path__, "rpccluster.master.")]
    assert "rpccluster.master.supervisor" in masters
    names = [*masters, "rpccluster.assembly.assemble", "rpccluster.cli.main"]
    program = (
        "import importlib, sys\n"
        f"for name in {names}: importlib.import_module(name)\n"
        "print([name for name in sys.modules if name.partition('.')[0] in ('gevent', 'greenlet', 'asyncio')])\n"
        "print([name for name in sys.modules if name.startswith('rpccluster.worker')])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["[]", "[]"]
