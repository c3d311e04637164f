"""The real msgpack-rpc-python 0.4.1, the library that this project's users come from, in an environment of its own.

Owns `.venv-msgpackrpc` in the checkout: made once, under a lock, built aside and renamed. The `old_library`
fixture gives the path of its interpreter; what runs there is the test's affair. Test process only.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

__all__ = ["make_environment", "old_library", "old_tests", "old_twisted"]

CHECKOUT = Path(__file__).resolve().parent.parent
FOLDER = CHECKOUT / ".venv-msgpackrpc"
BUILD_TOOLS = ["setuptools<81", "wheel"]  # its setup.py is older than isolated builds
LIBRARY = "msgpack-rpc-python==0.4.1"
PACKAGES = ["msgpack-python==0.5.6", "tornado==4.5.3", LIBRARY]
TWISTED_FOLDER = CHECKOUT / ".venv-txmsgpackrpc"
TWISTED = "txmsgpackrpc==1.2"
TESTS = Path("msgpack-rpc-python-0.4.1", "test", "test_msgpackrpc.py")


@pytest.fixture(scope="session")
def old_library() -> str:
    """The path of an interpreter that can ``import msgpackrpc`` (version 0.4.1, with msgpack 0.5.6, tornado 4.5)."""
    try:
        return str(make_environment())
    except (OSError, subprocess.CalledProcessError) as error:
        output = getattr(error, "stderr", None) or b""
        pytest.skip(f"msgpack-rpc-python could not be installed: {error}: {output[-500:].decode(errors='replace')}")


@pytest.fixture(scope="session")
def old_twisted() -> str:
    """The path of an interpreter that can ``import txmsgpackrpc``, which needs msgpack-python 0.5.6."""
    try:
        return str(_made(TWISTED_FOLDER, ["msgpack-python==0.5.6", TWISTED], Path("bin", "python")))
    except (OSError, subprocess.CalledProcessError) as error:
        output = getattr(error, "stderr", None) or b""
        pytest.skip(f"txmsgpackrpc could not be installed: {error}: {output[-500:].decode(errors='replace')}")


@pytest.fixture(scope="session")
def old_tests(old_library: str) -> Path:
    """The library's own test file, as it comes with its source distribution."""
    return Path(old_library).parent.parent / TESTS


def make_environment() -> Path:
    """The environment's interpreter; makes the environment if it is not there. Raises CalledProcessError."""
    return _made(FOLDER, PACKAGES, TESTS)


def _made(folder: Path, packages: list[str], sign: Path) -> Path:
    """The interpreter of a folder's environment; makes it if ``sign`` is not in it."""
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / sign).exists():
            shutil.rmtree(folder, ignore_errors=True)
            _build_aside(folder, packages)
    return folder / "bin" / "python"


def _build_aside(folder: Path, packages: list[str]) -> None:
    """Make and fill the environment under another name, then rename it: a half-made one is never found."""
    aside = folder.with_name(f"{folder.name}.building")
    shutil.rmtree(aside, ignore_errors=True)
    _run(_old_enough_python(), "-m", "venv", str(aside))
    pip = [str(aside / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet"]
    _run(*pip, "install", *BUILD_TOOLS)
    _run(*pip, "install", "--no-build-isolation", *packages)
    if LIBRARY in packages:
        source = ["--no-build-isolation", "--no-deps", "--no-binary", ":all:", "--dest", str(aside)]
        _run(*pip, "download", *source, LIBRARY)
    for archive in aside.glob("msgpack-rpc-python-*.tar.gz"):
        shutil.unpack_archive(archive, aside)
    aside.rename(folder)


def _old_enough_python() -> str:
    """An interpreter that tornado 4.5 still runs on: `ssl.match_hostname` is gone since Python 3.12."""
    if sys.implementation.name == "cpython" and sys.version_info < (3, 12):
        return sys.executable
    for name in ("python3.11", "python3.10", "python3.9", "python3"):
        path = shutil.which(name)
        if path and _version_of(path) < (3, 12):
            return path
    raise FileNotFoundError("found no Python older than 3.12, expected one for tornado 4.5")


def _version_of(python: str) -> tuple[int, ...]:
    """The interpreter's version; one so new that it is passed over when it does not run at all."""
    command = [python, "-c", "import sys; print(*sys.version_info[:2])"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    return tuple(map(int, done.stdout.split())) or (99,)


def _run(*command: str) -> None:
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True, env=clean)
