"""The code of a pool's tasks: its targets, and the service whose methods run here. Runs in the task process.

The targets are imported at the boot. An instance of the service is made once, with the first call of a method.
"""

from __future__ import annotations

import inspect
from typing import Any, Callable

from rpccluster.child.settings import ServiceSettings
from rpccluster.child.users_code import find, own_traceback, put_on_path, shut_hint
from rpccluster.config.declared import declaration_of
from rpccluster.config.sections.pool import PoolOptions
from rpccluster.errors import SettingsRefused, TasksNotLoaded
from rpccluster.failure import error_text
from rpccluster.live_settings import Given, Version
from rpccluster.tasks.targets import Refused, Targets

__all__ = ["Code"]

_STARTED = "task_process_started"


class Code:
    """All that the tasks of one process may run."""

    def __init__(self, pool: str, options: PoolOptions, given: Given) -> None:
        """Import the targets. Raises `TasksNotLoaded`, and `SettingsRefused`."""
        self._pool = pool
        self._service = options.service
        self._methods: dict[str, Callable[..., Any]] | None = None
        self._given = given
        self._settings = ServiceSettings(given)
        self._targets = Targets(options.targets)
        folders = put_on_path(options.pythonpath)
        try:
            self._declare(self._targets.load())
        except SettingsRefused:
            raise
        except BaseException as error:  # a SystemExit at import is a fault, too
            text = f"cannot load the targets{shut_hint(folders)}: {own_traceback(error, __file__)}"
            raise TasksNotLoaded(text) from error

    def _declare(self, loaded: list[tuple[str, Any]]) -> None:
        """Let the first target that declares settings have its say, or the first one, which may have hooks."""
        declaring = [each for each in loaded if declaration_of(each[1]) is not None]
        self._is_declared = bool(declaring)
        for name, found in (declaring or loaded)[:1]:
            self._settings.take_declaration(name, found)
            self._settings.ask()

    def prepare(self, given: Given) -> Version:
        """Return the version of the settings that ``given`` makes. Raises `SettingsRefused`."""
        self._given = given
        return self._settings.prepare(given)

    def tell(self, old: Version, new: Version) -> None:
        """Tell the hook of a change. Raises all that it raises."""
        self._settings.tell(old, new)

    def find(self, target: str) -> Callable[..., Any]:
        """Return what a task with ``target`` calls. Raises `Refused`."""
        return self._targets.find(target)

    def method(self, name: str) -> Callable[..., Any]:
        """Return the method of the service that callers call by ``name``. Raises `Refused` if it is not this pool's."""
        if self._methods is None:
            self._methods = self._make_service()
        try:
            return self._methods[name]
        except KeyError:
            raise Refused(f"found the method {name!r}, expected one marked @rpc(pool={self._pool!r})") from None

    def _made(self, found: Any) -> Any:
        """Make the instance, under the settings as it declares them, unless a target has done so."""
        if not self._is_declared:
            self._settings = ServiceSettings(self._given)
            self._settings.take_declaration(self._service, found)
        service = found() if inspect.isclass(found) else found
        if not self._is_declared:
            self._settings.take_instance(service)
            self._settings.ask()
        return service

    def _make_service(self) -> dict[str, Callable[..., Any]]:
        """Make the instance, and tell it. Returns its methods of this pool by their names."""
        try:
            found = find(self._service)
            service = self._made(found)
            started = getattr(service, _STARTED, None)
            if callable(started):
                started()
            return dict(_methods_of(service, self._pool))
        except BaseException as error:
            text = f"cannot load the service {self._service!r}: {own_traceback(error, __file__)}"
            raise Refused(text if self._service else f"found no service, expected one ({error_text(error)})") from error


def _methods_of(service: Any, pool: str) -> list[tuple[str, Callable[..., Any]]]:
    """Return the methods of ``service`` that are marked for ``pool``, by their names for callers."""
    found = []
    for name in dir(type(service)):
        mark: Any = getattr(inspect.getattr_static(service, name, None), "__rpc__", None)
        if getattr(mark, "pool", None) == pool:
            found.append((mark.name or name, getattr(service, name)))
    return found
