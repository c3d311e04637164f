"""`bin/wheel`: what it builds runs in a bare environment, compiled, on a machine without a compiler."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import rpccluster
from rpccluster.testing import RunningCluster
from tests.programs import needed

CHECKOUT = Path(rpccluster.__file__).resolve().parent.parent


@pytest.mark.timeout(400)
@pytest.mark.skipif(sys.implementation.name != "cpython", reason="the compiled engine is for CPython")
def test_a_wheel_brings_the_compiled_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is installed by pip alone, from an own file and the index, and a cluster of it runs compiled."""
    needed("cc")
    build = [sys.executable, str(CHECKOUT / "bin" / "wheel"), "--dest", str(tmp_path / "dist")]
    wheel = subprocess.run(build, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    assert "linux" in Path(wheel).name  # and many of them, where the tools for that work
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", str(bare)], check=True)
    no_compiler = {**os.environ, "PATH": str(bare / "bin"), "CC": "/bin/false"}
    install = [str(bare / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", wheel]
    subprocess.run(install, env=no_compiler, check=True)

    monkeypatch.setattr("sys.executable", str(bare / "bin" / "python"))  # which runs the cluster
    running = RunningCluster(tmp_path, {"number_workers": 1, "engine": "compiled"})
    try:
        running.start()
        assert running.status()["master"]["engine"] == "compiled"
        assert running.client().call("echo", "from a wheel") == "from a wheel"
    finally:
        running.stop()
