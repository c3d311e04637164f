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
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
OLDEST = (3, 9)
INTERRUPTED = 130  # as a shell tells SIGINT


def run_module(module: str, arguments: list[str], extra: str = "", python: str | None = None) -> None:
    """Replace this process by ``python -m module arguments`` in the checkout's environment. Does not return."""
    _run_python(_environment_or_exit(extra, python), ["-m", module, *arguments])


def interpreter(extra: str = "", python: str | None = None) -> str:
    """The path of Python in the checkout's environment."""
    return str(_environment_or_exit(extra, python) / "bin" / "python")


def run_script(script: str, arguments: list[str]) -> None:
    """Replace this process by a script of the checkout's environment. Does not return.

    Unlike ``-m`` that imports nothing from the current folder.
    """
    folder = _environment_or_exit("", None)
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # those of this interpreter
    _run_python(folder, [*flags, str(folder / "bin" / script), *arguments])


def _environment_or_exit(extra: str, python: str | None) -> Path:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a parent may ignore it: then pip would seem to succeed, always
    try:
        return environment(extra, python)
    except KeyboardInterrupt:
        _say("set-up interrupted; the next start begins anew")
        sys.exit(INTERRUPTED)


def _run_python(folder: Path, arguments: list[str]) -> None:
    interpreter = folder / "bin" / "python"
    os.execv(interpreter, [str(interpreter), *arguments])


def environment(extra: str = "", python: str | None = None) -> Path:
    """The folder of an environment that holds the project and ``extra``; made or completed if need be.

    ``python`` is the interpreter to make it with, in a folder of its own; None takes what is there, or this one.
    """
    folder = HERE / (".venv" if python is None else f".venv-{Path(python).name}")
    if _is_complete(folder, extra, python):
        return folder
    with _locked(folder) as lock:
        if not _is_complete(folder, extra, python):
            _say(f"setting up {folder.name}" + (f" with the {extra} extra" if extra else ""))
            if not _is_sound(folder, python):
                _build_aside(folder, python or sys.executable, lock)
            _install(folder, extra, lock)
    return folder


def _is_complete(folder: Path, extra: str, python: str | None) -> bool:
    stamp = _stamp(folder, extra)
    return _is_sound(folder, python) and stamp.exists() and stamp.read_text() == _wanted()


def _is_sound(folder: Path, python: str | None) -> bool:
    """Whether its interpreter is still the one it was made with, and no installation was cut short."""
    made_with, interpreter = folder / ".made-with", folder / "bin" / "python"
    if _marker(folder).exists() or not (made_with.exists() and interpreter.exists()):
        return False
    asked_for, found = made_with.read_text().splitlines()
    return found == os.path.realpath(interpreter) and python in (None, asked_for)


def _stamp(folder: Path, extra: str) -> Path:
    return folder / f".installed-{extra or 'project'}"


def _marker(folder: Path) -> Path:
    return folder / ".installing"


def _wanted() -> str:
    """What an installation depends on: what it needs and builds, and where the checkout stands."""
    compiled = (path for form in ("pyx", "pxi", "h") for path in HERE.glob(f"rpccluster/**/*.{form}"))
    sources = [HERE / "setup.py", *sorted(compiled)]
    return f"{hashlib.sha256(b''.join(path.read_bytes() for path in sources)).hexdigest()}\n{HERE}\n"


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """Hold the folder's lock. Yields its descriptor: whom it is passed to holds the lock, too."""
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock.fileno()


def _build_aside(folder: Path, python: str, lock: int) -> None:
    """Make an empty environment under another name, then rename it: a half-made one is never found."""
    aside = folder.with_name(f"{folder.name}.building")
    shutil.rmtree(aside, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    _run([python, "-m", "venv", str(aside)], lock)
    for script in (aside / "bin").iterdir():  # they name the folder they were made in
        if script.is_file() and not script.is_symlink() and b"\0" not in script.read_bytes():
            script.write_text(script.read_text().replace(str(aside), str(folder)))
    aside.rename(folder)
    (folder / ".made-with").write_text(f"{python}\n{os.path.realpath(folder / 'bin' / 'python')}\n")


def _install(folder: Path, extra: str, lock: int) -> None:
    what = f"{HERE}[{extra}]" if extra else str(HERE)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    _run([*pip, "install", "--quiet", "-e", what], lock, _marker(folder))
    for done in {"", extra}:
        _stamp(folder, done).write_text(_wanted())


def _run(command: list[str], lock: int, marker: Path | None = None) -> None:
    """Run ``command`` to its end; ``marker`` is there meanwhile, and stays if we are killed.

    The command holds the lock, too: if this process is killed, nobody comes in its way before it has ended.
    """
    if marker is not None:
        marker.touch()
    done = subprocess.run(command, stdout=sys.stderr, stdin=subprocess.DEVNULL, check=False, pass_fds=[lock])
    if marker is not None:
        marker.unlink()
    if done.returncode:
        _say(f"set-up failed: {' '.join(command)} ended with {done.returncode}")
        sys.exit(1)


def _say(text: str) -> None:
    print(f"rpccluster: {text}", file=sys.stderr, flush=True)


if sys.version_info < OLDEST:
    _say(f"found Python {sys.version.split()[0]}, expected {'.'.join(map(str, OLDEST))} or newer")
    sys.exit(1)
