"""`bin/wheel`: what it builds runs in a bare environment, compiled, on a machine without a compiler."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import rpccluster
from rpccluster.testing import RunningCluster
from tests.programs import needed

CHECKOUT = Path(rpccluster.__file__).resolve().parent.parent
IMPORTS_BOTH = "from rpccluster.worker.hot.compiled import _turn; from rpccluster.protocol import _wire, compiled;"
TELLS_FILES = IMPORTS_BOTH + "assert compiled.WIRE is _wire; print(_turn.__file__); print(_wire.__file__)"


@pytest.mark.timeout(400)
@pytest.mark.skipif(sys.implementation.name != "cpython", reason="the compiled engine is for CPython")
def test_a_wheel_brings_the_compiled_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds the sources alone; pip alone installs it; both compiled modules are in it; a cluster runs compiled."""
    needed("cc")
    build = [sys.executable, str(CHECKOUT / "bin" / "wheel"), "--dest", str(tmp_path / "dist")]
    wheel = subprocess.run(build, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    assert "linux" in Path(wheel).name  # and many of them, where the tools for that work
    modules = {name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".py")}
    assert modules == {str(path.relative_to(CHECKOUT)) for path in CHECKOUT.glob("rpccluster/**/*.py")}
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", str(bare)], check=True)
    no_compiler = {**os.environ, "PATH": str(bare / "bin"), "CC": "/bin/false"}
    install = [str(bare / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", wheel]
    subprocess.run(install, env=no_compiler, check=True)
    tell = [str(bare / "bin" / "python"), "-c", TELLS_FILES]
    files = subprocess.run(tell, cwd=tmp_path, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    assert len(files) == 2 and all(Path(file).is_relative_to(bare) for file in files)

    monkeypatch.setattr("sys.executable", str(bare / "bin" / "python"))  # which runs the cluster
    running = RunningCluster(tmp_path, {"number_workers": 1, "engine": "compiled"})
    try:
        running.start()
        assert running.status()["master"]["engine"] == "compiled"
        assert running.client().call("echo", "from a wheel") == "from a wheel"
    finally:
        running.stop()
