"""Keeps the package's code as it was when the master started, so that every later worker boots with it.

A deployment replaces the files under a running cluster. A worker imports most of its modules after the fork, so a later
worker would mix both versions. Therefore the master reads the code of all modules that it has not imported, without
running any of it, and serves their imports from then on. Runs in the master; its finder also runs in the workers.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.util
import os
import pkgutil
import sys
from collections.abc import Iterable, Iterator
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType
from typing import Any

from rpccluster.log import logger

__all__ = ["OwnCode"]


class OwnCode(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """The kept modules of one package, as a finder and loader of them."""

    def __init__(self, package: ModuleType) -> None:
        """Read the code of all modules of ``package``, and import none."""
        self._name = package.__name__
        self._specs: dict[str, ModuleSpec] = {}
        self._codes: dict[str, CodeType] = {}
        for spec in _specs_in(package.__path__, f"{self._name}."):
            self._specs[spec.name] = spec
            if spec.name in sys.modules:
                continue
            with contextlib.suppress(ImportError, SyntaxError, OSError, ValueError):  # its importer will see the error
                loader: Any = spec.loader
                code = loader.get_code(spec.name)
                if code is not None:  # an extension module has no code
                    self._codes[spec.name] = code
        self._on_disk = self._look()

    def answer_for_it(self) -> None:
        """Serve the imports of this process, and of those forked from it, from the kept code."""
        sys.meta_path.insert(0, self)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Return the spec of a kept module, which this object loads."""
        if name not in self._codes:
            return None
        found = self._specs[name]
        spec = importlib.util.spec_from_loader(name, self, origin=found.origin, is_package=_is_package(found))
        if spec is not None:
            spec.has_location = found.has_location
            spec.submodule_search_locations = found.submodule_search_locations
        return spec

    def exec_module(self, module: ModuleType) -> None:
        """Run the kept code of ``module``."""
        exec(self._codes[module.__name__], module.__dict__)

    def tell_of_changes(self) -> None:
        """Log, once for each change, that the code on disk has changed."""
        present = self._look()
        if present != self._on_disk:
            self._on_disk = present
            logger.warning(
                "The code of %s on disk has changed: workers are started from the running version until USR2 "
                "brings the other one",
                self._name,
            )

    def _look(self) -> list[tuple[int, int, int] | None]:
        return [_signature(spec.origin) for spec in self._specs.values()]


def _specs_in(path: Iterable[str], prefix: str) -> Iterator[ModuleSpec]:
    """Yield the specs of all modules below ``path``, without importing any."""
    for finder, name, _ in pkgutil.iter_modules(path, prefix):
        spec = finder.find_spec(name, None)
        if spec is not None:
            yield spec
            yield from _specs_in(spec.submodule_search_locations or (), f"{name}.")


def _is_package(spec: ModuleSpec) -> bool:
    return spec.submodule_search_locations is not None


def _signature(file: str | None) -> tuple[int, int, int] | None:
    """Return what changes when ``file`` is replaced or rewritten; None if there is no file."""
    with contextlib.suppress(OSError):
        if file is not None:
            found = os.stat(file)
            return found.st_ino, found.st_mtime_ns, found.st_size
    return None
