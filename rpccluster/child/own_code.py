"""The package's own code as it is when the master starts: every worker boots with it, however late it is forked.

An upgrade on disk replaces the files under a running cluster. A worker imports most of its modules after the fork, so
one forked later would be half of either version. The master therefore reads the code of all modules that it has not
imported, without running any of it, and answers for them from then on. Runs in the master; its finder in workers too.
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
    """The modules of one package, remembered."""

    def __init__(self, package: ModuleType) -> None:
        """Read them; nothing is imported."""
        self._name = package.__name__
        self._specs: dict[str, ModuleSpec] = {}
        self._codes: dict[str, CodeType] = {}
        for spec in _specs_in(package.__path__, f"{self._name}."):
            self._specs[spec.name] = spec
            if spec.name in sys.modules:
                continue
            with contextlib.suppress(ImportError, SyntaxError, OSError, ValueError):  # who imports it is told
                loader: Any = spec.loader
                code = loader.get_code(spec.name)
                if code is not None:  # else it is an extension module: that has none
                    self._codes[spec.name] = code
        self._on_disk = self._look()

    def answer_for_it(self) -> None:
        """Let every import of this process, and of those forked from it, get what was remembered."""
        sys.meta_path.insert(0, self)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """How a module that was remembered is loaded: by this object."""
        if name not in self._codes:
            return None
        found = self._specs[name]
        spec = importlib.util.spec_from_loader(name, self, origin=found.origin, is_package=_is_package(found))
        if spec is not None:
            spec.has_location = found.has_location
            spec.submodule_search_locations = found.submodule_search_locations
        return spec

    def exec_module(self, module: ModuleType) -> None:
        """Run it."""
        exec(self._codes[module.__name__], module.__dict__)

    def tell_of_changes(self) -> None:
        """Log that the code on disk is another by now, once for each change."""
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
    """The specs of all modules below ``path``, found without importing any."""
    for finder, name, _ in pkgutil.iter_modules(path, prefix):
        spec = finder.find_spec(name, None)
        if spec is not None:
            yield spec
            yield from _specs_in(spec.submodule_search_locations or (), f"{name}.")


def _is_package(spec: ModuleSpec) -> bool:
    return spec.submodule_search_locations is not None


def _signature(file: str | None) -> tuple[int, int, int] | None:
    """What changes when a file is replaced or rewritten; None if it is not there."""
    with contextlib.suppress(OSError):
        if file is not None:
            found = os.stat(file)
            return found.st_ino, found.st_mtime_ns, found.st_size
    return None
