"""The settings of the service or function that a child runs: in force, prepared for a change, checked by its hooks.

Runs in the child. `rpccluster.live_settings` is what the service reads; the master says which version comes when.
"""

from __future__ import annotations

import sys
from typing import Any

from rpccluster.child.users_code import own_traceback
from rpccluster.config.declared import converted, declaration_of, with_places
from rpccluster.errors import SettingsRefused
from rpccluster.failure import error_text
from rpccluster.live_settings import Given, Version, settings

__all__ = ["ServiceSettings", "Untold", "changed_keys"]


class ServiceSettings:
    """The settings of one child's service. Its declaration and hooks are attributes of it, else of its module.

    The hooks of a class are those of its instance, so it has none before `take_instance`.
    """

    def __init__(self, given: Given) -> None:
        """Put ``given`` in force as texts, for a module that reads them while it is imported."""
        self._given = given
        self._homes: tuple[Any, ...] = ()
        self._declared: Any = None
        settings.put_in_force(converted(given, None))

    def take_declaration(self, spec: str, found: object) -> None:
        """Put the values in force by the declaration of ``found``, which ``spec`` names. Raises `SettingsRefused`."""
        self._homes = (found, sys.modules.get(spec.partition(":")[0]))
        declarations = (declaration_of(home) for home in self._homes)
        self._declared = next((each for each in declarations if each is not None), None)
        settings.put_in_force(converted(self._given, self._declared))

    def take_instance(self, service: object) -> None:
        """Take the hooks of ``service``, which the class found has made."""
        self._homes = (service, *self._homes[1:])

    def ask(self) -> None:
        """Ask the hook whether it takes the values in force, with which the child boots. Raises `SettingsRefused`."""
        self._ask(settings.newest, frozenset(settings.newest.values), "")

    def prepare(self, given: Given) -> Version:
        """Return the version that ``given`` makes, and change nothing. Raises `SettingsRefused`.

        Nobody is asked about a version of the same values: only options have changed.
        """
        if given.texts == self._given.texts:
            return settings.newest._replace(number=given.number)
        version = converted(given, self._declared)
        changed = changed_keys(settings.newest, version)
        self._ask(version, changed, f" {with_places(changed, given.places)}" if changed else "")
        return version

    def note_in_force(self, given: Given) -> None:
        """Note that ``given`` is in force, as it was prepared."""
        self._given = given

    def tell(self, old: Version, new: Version) -> None:
        """Tell the service's hook of a change that has happened. Raises all that the hook raises."""
        hook = self._hook("settings_changed")
        if hook is not None and new.values is not old.values:
            hook(old.values, new.values, changed_keys(old, new))

    def _ask(self, version: Version, changed: frozenset[str], what: str) -> None:
        hook = self._hook("settings_check")
        try:
            if hook is not None:
                hook(version.values, changed)
        except SystemExit as error:  # it would end the process
            raise SettingsRefused(f"settings_check refuses{what}: {error_text(error)}") from error
        except Exception as error:
            raise SettingsRefused(f"settings_check refuses{what}: {own_traceback(error, __file__)}") from error

    def _hook(self, name: str) -> Any:
        if any(isinstance(home, type) for home in self._homes):
            return None
        found = (getattr(home, name, None) for home in self._homes)
        return next((each for each in found if callable(each)), None)


class Untold:
    """The change of which the hook ``settings_changed`` has yet to be told. Its owner takes turns with `begin`.

    The hook is told of one change after another. What changes while it runs is one change, however many versions.
    """

    def __init__(self) -> None:
        self._told = settings.newest
        self._is_telling = False

    def begin(self) -> tuple[Version, Version] | None:
        """Return the old and the new version to tell now; None if there is no change, or it is being told of one.

        Call `end` when it has been told.
        """
        old, new = self._told, settings.newest
        if self._is_telling or old is new:
            return None
        self._told, self._is_telling = new, True
        return old, new

    def end(self) -> None:
        """Note that the hook has returned, or raised."""
        self._is_telling = False


def changed_keys(old: Version, new: Version) -> frozenset[str]:
    """Return the keys whose values differ."""
    missing = object()
    keys = old.values.keys() | new.values.keys()
    return frozenset(key for key in keys if old.values.get(key, missing) != new.values.get(key, missing))
