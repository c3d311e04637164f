"""Finds what a configuration names as ``module:name``, and tells why that fails. Runs in the child."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Collection
from typing import Any

from rpccluster.system.launch import start_folder

__all__ = ["find", "own_traceback", "put_on_path", "shut_hint"]


def put_on_path(pythonpath: tuple[str, ...]) -> list[str]:
    """Put ``pythonpath`` and the current folder first in ``sys.path``, in this order. Returns these folders."""
    folders = list(dict.fromkeys([*pythonpath, start_folder()]))
    sys.path[:] = [*folders, *(entry for entry in sys.path if entry not in folders)]
    return folders


def find(spec: str) -> Any:
    """Return the object of ``spec``: ``module:name``, or ``module:name.name``. Raises all that its code raises."""
    module_name, _, path = spec.partition(":")
    found: Any = importlib.import_module(module_name)
    for name in path.split("."):
        found = getattr(found, name)
    return found


def shut_hint(folders: Collection[str]) -> str:
    """Name those of ``folders`` that this process may not read; empty if it may read all."""
    shut = [folder for folder in folders if not os.access(folder, os.R_OK | os.X_OK)]
    return f" (uid {os.geteuid()} may not read {', '.join(shut)})" if shut else ""


def own_traceback(error: BaseException, caller: str) -> str:
    """Write one line that says what happened, then the traceback without ``caller``'s frames, ours and the import's."""
    ours = (caller, __file__, importlib.__file__)
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename in ours:
        trace = trace.tb_next
    lines = traceback.format_exception(type(error), error, trace)
    return f"{type(error).__name__}: {error}\n{''.join(lines).rstrip()}"
