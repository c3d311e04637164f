"""How this process was launched: from which folder, with which flags of the interpreter; and launching it again.

A folder is named as the user named it: where a symlink leads may be another release by the time it is needed again.
Every process.
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
    """The folder this process runs in: ``$PWD`` if that is it, so that a symlink stays one.

    Of a folder that is gone, the name it had; never raises OSError.
    """
    named = os.environ.get("PWD", "")
    with contextlib.suppress(OSError):
        if os.path.isabs(named) and os.path.samefile(named, os.curdir):
            return named
    with contextlib.suppress(OSError):
        return os.getcwd()
    return named if os.path.isabs(named) else os.sep


def enter(folder: str) -> None:
    """Go to ``folder`` and let ``$PWD`` name it, as a shell would. Raises OSError and changes nothing if it is gone."""
    os.chdir(folder)
    os.environ["PWD"] = folder


def interpreter_flags() -> list[str]:
    """Flags for an interpreter that is to be like this one: warnings, ``-X``, ``-O`` and the like."""
    letters = [f"-{letter * getattr(sys.flags, name, 0)}" for name, letter in _LETTERS.items()]
    extras = [key if value is True else f"{key}={value}" for key, value in getattr(sys, "_xoptions", {}).items()]
    return [
        *(flag for flag in letters if flag != "-"),
        *(f"-W{warning}" for warning in sys.warnoptions),
        *(f"-X{extra}" for extra in extras),
    ]


def interpreter(folder: str) -> str:
    """This interpreter's path; if it lies in ``folder``, by the name that this has, where another may lie by then."""
    real = os.path.join(os.path.realpath(folder), "")
    if sys.executable.startswith(real):
        return os.path.join(folder, sys.executable[len(real) :])
    return sys.executable


def program(arguments: Sequence[str], folder: str, executable: str) -> list[str]:
    """What to exec in ``folder`` for this program, with ``arguments``, by ``executable`` if that is there still.

    ``python -m`` would import whatever lies in ``folder``. Only where the package itself was found there that has to
    be searched, after everything else.
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
