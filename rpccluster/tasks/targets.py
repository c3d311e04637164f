"""What the tasks of a pool may run: imported once, found by name, refused if it is not allowed. Runs in the child.

A module stands for its public functions and classes, and for the methods of these classes; what it has imported from
elsewhere is its own, too. Anything else is run only if ``targets`` names it. A program's own pool may also allow
`ANY`, which is imported when a task asks for it.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection
from typing import Any, Callable

from rpccluster.child.users_code import find, own_traceback

__all__ = ["ANY", "Refused", "Targets"]

#: Allows every target; no section of the configuration can.
ANY = "*"


class Refused(Exception):
    """The target may not be run, or is not there."""


class Targets:
    """The functions that a pool may run, by the names that tasks have for them."""

    def __init__(self, allowed: Collection[str]) -> None:
        """``allowed`` are modules, and functions as ``module:function``."""
        self._are_all = ANY in allowed
        self._modules = {each for each in allowed if ":" not in each and each != ANY}
        self._functions = {each for each in allowed if ":" in each}
        self._found: dict[str, Callable[..., Any]] = {}

    def load(self) -> list[tuple[str, Any]]:
        """Import all that is allowed, and return it by its name. Raises all that its code raises."""
        modules = [(name, importlib.import_module(name)) for name in sorted(self._modules)]
        return [*modules, *((name, find(name)) for name in sorted(self._functions))]

    def find(self, target: str) -> Callable[..., Any]:
        """Return what a task with ``target`` calls. Raises `Refused`."""
        found = self._found.get(target)
        if found is None:
            found = self._found[target] = self._find(target)
        return found

    def _find(self, target: str) -> Callable[..., Any]:
        module, _, path = target.partition(":")
        is_named = target in self._functions or self._are_all
        names = path.split(".")
        is_public = module in self._modules and not any(name.startswith("_") for name in names)
        if not path or not (is_named or is_public):
            raise Refused(f"found the target {target!r}, expected one of: {self._allowed()}")
        try:
            found = find(target)
        except Exception as error:
            told = own_traceback(error, __file__)
            raise Refused(f"found the target {target!r}, expected one that is there: {told}") from None
        if not callable(found) or not (is_named or self._is_of_classes(module, names)):
            raise Refused(f"found the target {target!r}, expected a function or a class")
        return _runnable(found) if isinstance(found, type) else found

    def _is_of_classes(self, module: str, names: list[str]) -> bool:
        """Return whether each step but the last is a class: no other module can be reached."""
        return all(isinstance(find(f"{module}:{'.'.join(names[:end])}"), type) for end in range(1, len(names)))

    def _allowed(self) -> str:
        return ", ".join(sorted(self._modules | self._functions)) or "none (targets is empty)"


def _runnable(found: type) -> Callable[..., Any]:
    """Return what a task calls whose target is a class: its ``runnable`` on a new instance, if it has that."""
    if not callable(getattr(found, "runnable", None)):
        return found
    return lambda *args, **kwargs: found().runnable(*args, **kwargs)
