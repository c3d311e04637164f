"""Finds and makes the service that the configuration names. Runs in the worker, and in the child that tries it."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Collection
from typing import Any

from rpccluster.child.settings import ServiceSettings
from rpccluster.child.users_code import find, own_traceback, put_on_path, shut_hint
from rpccluster.errors import ServiceNotLoaded, SettingsRefused

__all__ = ["code_files", "load_service"]


def load_service(spec: str, pythonpath: tuple[str, ...], settings: ServiceSettings) -> Any:
    """Return the object of ``spec`` (``module:Class`` or ``module:object``); a class is instantiated.

    Afterwards ``pythonpath`` and the current folder stand first in ``sys.path``, in this order. The ``settings`` are in
    force when a class is instantiated. Raises `ServiceNotLoaded`, and `SettingsRefused`.
    """
    folders = put_on_path(pythonpath)
    try:
        found = find(spec)
        settings.take_declaration(spec, found)
        service = found() if inspect.isclass(found) else found
        settings.take_instance(service)
        settings.ask()
        return service
    except SettingsRefused:
        raise
    except BaseException as error:  # a SystemExit at import is a fault of the service, too
        text = f"cannot load the service {spec!r}{shut_hint(folders)}: {own_traceback(error, __file__)}"
        raise ServiceNotLoaded(text) from error


def code_files(known: Collection[str]) -> list[str]:
    """Return the source files of all modules but those whose names are ``known``."""
    files = [getattr(module, "__file__", None) for name, module in list(sys.modules.items()) if name not in known]
    return sorted({file for file in files if isinstance(file, str) and os.path.isabs(file) and file.endswith(".py")})
