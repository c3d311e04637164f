"""How this process was launched: its folder and the interpreter's flags; and the command that launches it again.

A folder keeps the name that the user gave it, since a symlink may lead to another release later. Every process.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence

__all__ = ["enter", "interpreter", "interpreter_flags", "program", "start_folder"]

_LETTERS = {
    "bytes_warning": "b",
    "debug": "d",
    "dont_write_bytecode": "B",
    "ignore_environment": "E",
    "isolated": "I",
    "no_site": "S",
    "no_user_site": "s",
    "optimize": "O",
    "quiet": "q",
    "safe_path": "P",
    "verbose": "v",
}


def start_folder() -> str:
    """Return the folder of this process, as ``$PWD`` if that names it, so that a symlink stays one.

    If the folder has gone, returns the name that it had. Never raises OSError.
    """
    named = os.environ.get("PWD", "")
    with contextlib.suppress(OSError):
        if os.path.isabs(named) and os.path.samefile(named, os.curdir):
            return named
    with contextlib.suppress(OSError):
        return os.getcwd()
    return named if os.path.isabs(named) else os.sep


def enter(folder: str) -> None:
    """Go to ``folder`` and set ``$PWD``, as a shell would. Raises OSError, and changes nothing, if it has gone."""
    os.chdir(folder)
    os.environ["PWD"] = folder


def interpreter_flags() -> list[str]:
    """Return the flags of this interpreter, for another one like it: warnings, ``-X``, ``-O`` and the like."""
    letters = [f"-{letter * getattr(sys.flags, name, 0)}" for name, letter in _LETTERS.items()]
    extras = [key if value is True else f"{key}={value}" for key, value in getattr(sys, "_xoptions", {}).items()]
    return [
        *(flag for flag in letters if flag != "-"),
        *(f"-W{warning}" for warning in sys.warnoptions),
        *(f"-X{extra}" for extra in extras),
    ]


def interpreter(folder: str) -> str:
    """Return this interpreter's path. If it lies in ``folder``, the path begins with that name, to follow a symlink."""
    real = os.path.join(os.path.realpath(folder), "")
    if sys.executable.startswith(real):
        return os.path.join(folder, sys.executable[len(real) :])
    return sys.executable


def program(arguments: Sequence[str], folder: str, executable: str) -> list[str]:
    """Return the command that runs this program in ``folder`` with ``arguments``, by ``executable`` if it still exists.

    ``python -m`` would import any module that lies in ``folder``. So ``folder`` is searched only if the package itself
    lies there, and last.
    """
    home = os.path.abspath(os.path.join(os.path.dirname(__file__), os.pardir, os.pardir))
    steps = ["import sys", "sys.path[:1] == [''] and sys.path.pop(0)"]
    with contextlib.suppress(OSError):
        if os.path.samefile(home, folder):
            steps.append(f"sys.path.append({folder!r})")
    steps.append("from rpccluster.cli.main import main; main()")
    found = executable if os.path.exists(executable) else sys.executable
    flags = interpreter_flags()
    if hasattr(sys.flags, "safe_path") and "-P" not in flags and not os.path.isdir(folder):
        flags.append("-P")  # Python 3.13.0 has it in its path, and fails with a SystemError where a module lacks a name
    return [found, *flags, "-c", "; ".join(steps), *arguments]
