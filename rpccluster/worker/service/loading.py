"""Finds and makes the service that the configuration names. Runs in the worker, and in the child that tries it."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Collection
from typing import Any

from rpccluster.errors import ServiceNotLoaded
from rpccluster.system.launch import start_folder

__all__ = ["code_files", "load_service"]


def load_service(spec: str, pythonpath: tuple[str, ...]) -> Any:
    """Return the object of ``spec`` (``module:Class`` or ``module:object``); a class is instantiated.

    Afterwards ``pythonpath`` and the current folder stand first in ``sys.path``, in this order.
    Raises `ServiceNotLoaded`.
    """
    folders = list(dict.fromkeys([*pythonpath, start_folder()]))
    sys.path[:] = [*folders, *(entry for entry in sys.path if entry not in folders)]
    module_name, _, path = spec.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for name in path.split("."):
            found = getattr(found, name)
        return found() if inspect.isclass(found) else found
    except BaseException as error:  # a SystemExit at import is a fault of the service, too
        shut = [folder for folder in folders if not os.access(folder, os.R_OK | os.X_OK)]
        hint = f" (uid {os.geteuid()} may not read {', '.join(shut)})" if shut else ""
        raise ServiceNotLoaded(f"cannot load the service {spec!r}{hint}: {_own_traceback(error)}") from error


def code_files(known: Collection[str]) -> list[str]:
    """Return the source files of all modules but those whose names are ``known``."""
    files = [getattr(module, "__file__", None) for name, module in list(sys.modules.items()) if name not in known]
    return sorted({file for file in files if isinstance(file, str) and os.path.isabs(file) and file.endswith(".py")})


def _own_traceback(error: BaseException) -> str:
    """Write one line that says what happened, then the traceback without our frames and the import system's."""
    lines = traceback.format_exception(type(error), error, _skip_ours(error.__traceback__))
    return f"{type(error).__name__}: {error}\n{''.join(lines).rstrip()}"


def _skip_ours(trace: Any) -> Any:
    while trace is not None and trace.tb_frame.f_code.co_filename in (__file__, importlib.__file__):
        trace = trace.tb_next
    return trace
