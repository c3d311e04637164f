"""The checkout's own environment: makes ``.venv`` with the project installed in it, and runs Python there.

Owns the `.venv*` folders. Used by the launchers beside it; nothing of the package is imported here, since
it is not installed yet when this runs. Needs nothing but Python 3.9 and pip.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
OLDEST = (3, 9)


def run_module(module: str, arguments: list[str], extra: str = "", python: str | None = None) -> None:
    """Replace this process by ``python -m module arguments`` in the checkout's environment. Does not return."""
    interpreter = environment(extra, python) / "bin" / "python"
    os.execv(interpreter, [str(interpreter), "-m", module, *arguments])


def environment(extra: str = "", python: str | None = None) -> Path:
    """The folder of an environment that holds the project and ``extra``; made or completed if need be."""
    folder = HERE / (".venv" if python is None else f".venv-{Path(python).name}")
    if _is_complete(folder, extra):
        return folder
    with _locked(folder):
        if not _is_complete(folder, extra):
            _say(f"setting up {folder.name}" + (f" with the {extra} extra" if extra else ""))
            if not (folder / "bin" / "python").exists():
                _build_aside(folder, python or sys.executable)
            _install(folder, extra)
    return folder


def _is_complete(folder: Path, extra: str) -> bool:
    stamp = _stamp(folder, extra)
    return stamp.exists() and stamp.read_text() == _wanted()


def _stamp(folder: Path, extra: str) -> Path:
    return folder / f".installed-{extra or 'project'}"


def _wanted() -> str:
    return hashlib.sha256((HERE / "setup.py").read_bytes()).hexdigest()


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build_aside(folder: Path, python: str) -> None:
    """Make an empty environment under another name, then rename it: a half-made one is never found."""
    aside = folder.with_name(f"{folder.name}.building")
    shutil.rmtree(aside, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    _run([python, "-m", "venv", str(aside)])
    for script in (aside / "bin").iterdir():  # they name the folder they were made in
        if script.is_file() and not script.is_symlink() and b"\0" not in script.read_bytes():
            script.write_text(script.read_text().replace(str(aside), str(folder)))
    aside.rename(folder)


def _install(folder: Path, extra: str) -> None:
    what = f"{HERE}[{extra}]" if extra else str(HERE)
    _run([str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-e", what])
    for done in {"", extra}:
        _stamp(folder, done).write_text(_wanted())


def _run(command: list[str]) -> None:
    status = subprocess.run(command, stdout=sys.stderr, stdin=subprocess.DEVNULL, check=False).returncode
    if status:
        _say(f"set-up failed: {' '.join(command)} ended with {status}")
        sys.exit(1)


def _say(text: str) -> None:
    print(f"rpccluster: {text}", file=sys.stderr, flush=True)


if sys.version_info < OLDEST:
    _say(f"found Python {sys.version.split()[0]}, expected {'.'.join(map(str, OLDEST))} or newer")
    sys.exit(1)
