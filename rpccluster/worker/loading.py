"""Finding and making the service that the configuration names. Runs in the worker, and in the child that checks it."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import sys
import traceback
from typing import Any

from rpccluster.errors import ServiceNotLoaded

__all__ = ["load_service"]


def load_service(spec: str, pythonpath: tuple[str, ...]) -> Any:
    """The object that ``spec``, ``module:Class`` or ``module:object``, names; a class is instantiated.

    ``pythonpath`` and the current folder are put before ``sys.path``. Raises `ServiceNotLoaded`.
    """
    folders = _folders(pythonpath)
    for folder in reversed(folders):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    module_name, _, path = spec.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for name in path.split("."):
            found = getattr(found, name)
        return found() if inspect.isclass(found) else found
    except BaseException as error:  # SystemExit and the like at import are faults of the service, too
        shut = [folder for folder in folders if not os.access(folder, os.R_OK | os.X_OK)]
        hint = f" (uid {os.geteuid()} may not read {', '.join(shut)})" if shut else ""
        raise ServiceNotLoaded(f"cannot load the service {spec!r}{hint}: {_own_traceback(error)}") from error


def _folders(pythonpath: tuple[str, ...]) -> list[str]:
    """``pythonpath``, then the folder this process runs in, if that still exists."""
    with contextlib.suppress(FileNotFoundError):
        return [*pythonpath, os.getcwd()]
    return [*pythonpath]


def _own_traceback(error: BaseException) -> str:
    """One line that says what happened, then the traceback without our own frames and the import system's."""
    lines = traceback.format_exception(type(error), error, _skip_ours(error.__traceback__))
    return f"{type(error).__name__}: {error}\n{''.join(lines).rstrip()}"


def _skip_ours(trace: Any) -> Any:
    while trace is not None and trace.tb_frame.f_code.co_filename in (__file__, importlib.__file__):
        trace = trace.tb_next
    return trace
