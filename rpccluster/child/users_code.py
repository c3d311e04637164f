"""Finds what a configuration names as ``module:name``, and tells why that fails. Runs in the child."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Collection, Iterable
from difflib import get_close_matches
from pkgutil import iter_modules
from typing import Any

from rpccluster.system.processes.launch import start_folder

__all__ = ["find", "own_traceback", "put_on_path", "shut_hint"]

_RELATIVE = "; name it PACKAGE.MODULE:NAME, from the folder that holds the package"


class _NotFound(Exception):
    """There is no such module or name; the message tells all, and no traceback would tell more."""


class _NoModule(_NotFound, ModuleNotFoundError):
    """There is no such module; not one that it imports."""


def put_on_path(pythonpath: tuple[str, ...]) -> list[str]:
    """Put ``pythonpath`` and the current folder first in ``sys.path``, in this order. Returns these folders."""
    folders = list(dict.fromkeys([*pythonpath, start_folder()]))
    sys.path[:] = [*folders, *(entry for entry in sys.path if entry not in folders)]
    return folders


def find(spec: str) -> Any:
    """Return the object of ``spec``: ``module:name``, or ``module:name.name``. Raises all that its code raises."""
    module_name, _, path = spec.partition(":")
    found: Any = _module(module_name)
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError as error:
            raise _NotFound(f"AttributeError: {error}{_near(name, dir(found))}") from error
    return found


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not f"{name}.".startswith(f"{error.name}."):  # it is there, but another that it imports is not
            raise
        wanted = name[: -len(".py")] if name.endswith(".py") else name
        folders = [folder for folder in sys.path if not folder.startswith((sys.prefix, sys.base_prefix))]
        hint = _near(wanted, [module.name for module in iter_modules(folders)])
        where = ", ".join(sys.path[:2])
        text = f"ModuleNotFoundError: {error}{hint or f'; sys.path begins with {where}'}"
        raise _NoModule(text, name=error.name) from error


def _near(name: str, names: Iterable[str]) -> str:
    return "".join(f"; did you mean {near}?" for near in get_close_matches(name, list(names), 1))


def shut_hint(folders: Collection[str]) -> str:
    """Name those of ``folders`` that this process may not read; empty if it may read all."""
    shut = [folder for folder in folders if not os.access(folder, os.R_OK | os.X_OK)]
    return f" (uid {os.geteuid()} may not read {', '.join(shut)})" if shut else ""


def own_traceback(error: BaseException, caller: str) -> str:
    """Write one line that says what happened, then the traceback without ``caller``'s frames, ours and the import's.

    A module or a name that is not there has no traceback.
    """
    if isinstance(error, _NotFound):
        return str(error)
    ours = (caller, __file__, importlib.__file__)
    trace = error.__traceback__
    while trace is not None and _is_among(trace.tb_frame.f_code.co_filename, ours):
        trace = trace.tb_next
    lines = traceback.format_exception(type(error), error, trace)
    hint = _RELATIVE if isinstance(error, ImportError) and "no known parent package" in str(error) else ""
    return f"{type(error).__name__}: {error}{hint}\n{''.join(lines).rstrip()}"


def _is_among(file: str, ours: tuple[str, ...]) -> bool:
    return file in ours or file.startswith("<frozen importlib")
