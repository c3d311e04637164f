"""Merges the sources of the configuration into one checked set of options, or reports every fault at once.

Owns the order default < file < environment < flags, and which options a running cluster may not change. Any process.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from rpccluster.config.checks import Machine, complaints
from rpccluster.config.ini import Reading, read_ini
from rpccluster.config.origin import BUILT_IN, COMMAND_LINE, ENVIRONMENT, Fault, Origin, Setting, flag_origin
from rpccluster.config.sections.cluster import OPTIONS, Options
from rpccluster.errors import ConfigError
from rpccluster.system.launch import start_folder

__all__ = ["Configuration", "Sources", "find", "load", "refused_changes", "reload"]


@dataclass(frozen=True)
class Sources:
    """The sources of the configuration, enough to read it again after the process has changed its folder.

    ``path`` is the file as the user wrote it. ``environment`` and ``flags`` map option keys to their texts. Relative
    paths start in ``start_folder``.
    """

    path: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    flags: Mapping[str, str] = field(default_factory=dict)
    start_folder: str = field(default_factory=start_folder)


@dataclass(frozen=True)
class Configuration:
    """The options of a cluster, and the origin of each value."""

    options: Options
    origins: Mapping[str, Origin]
    sources: Sources

    @property
    def path(self) -> str | None:
        """The absolute path of the configuration file; None without a file."""
        return _absolute(self.sources)

    def origin(self, key: str) -> Origin:
        """Return the place where the value of ``key`` was written."""
        return self.origins.get(key, BUILT_IN)

    def fault(self, key: str, problem: str) -> str:
        """Write the line of a fault: the place of ``key``'s value, the key, and the problem."""
        return str(Fault(self.origin(key), key, problem))

    def text(self, key: str) -> str:
        """Write the value of ``key`` as a file would."""
        return OPTIONS[key].type.write(getattr(self.options, key))

    def describe(self) -> Iterator[tuple[str, str, str]]:
        """Yield key, value and origin of every option, as text."""
        for key in OPTIONS:
            yield key, self.text(key), str(self.origin(key))


def load(sources: Sources, machine: Machine | None = None) -> Configuration:
    """Read and merge ``sources``; with ``machine``, also check the options against it.

    Raises `ConfigError` with every fault, in the order of file, environment and flags.
    """
    configuration, faults = _load(sources, machine)
    _refuse(faults)
    return configuration


def find(sources: Sources, key: str) -> Any:
    """Return the value of one option, whatever faults the others have: enough to reach a running cluster.

    Raises `ConfigError` with every fault if that option itself is at fault.
    """
    configuration, faults = _load(sources, None)
    if key not in configuration.origins:
        _refuse(faults)
    return getattr(configuration.options, key)


def reload(running: Configuration, machine: Machine) -> Configuration:
    """Read the sources of ``running`` again, for a HUP.

    Raises `ConfigError` with every fault. A change of an option that a HUP cannot change is one of them.
    """
    configuration, faults = _load(running.sources, machine)
    changes = refused_changes(running, configuration)
    if faults:  # a faulty option stands at its default: that is no change
        written = configuration.origins.keys() - {fault.key for fault in faults}
        changes = [change for change in changes if change.key in written]
    _refuse(faults + changes)
    return configuration


def refused_changes(running: Configuration, changed: Configuration) -> list[Fault]:
    """Return a fault for each option that differs although a HUP cannot change it."""
    return [
        Fault(
            changed.origin(key),
            key,
            f"found {changed.text(key) or 'nothing'}, expected {running.text(key) or 'nothing'} until the next start",
        )
        for key, option in OPTIONS.items()
        if not option.hup and getattr(changed.options, key) != getattr(running.options, key)
    ]


def _load(sources: Sources, machine: Machine | None) -> tuple[Configuration, list[Fault]]:
    """Read ``sources``. Returns the options, faulty ones at their defaults, and every fault."""
    path = _absolute(sources)
    reading = read_ini(path, sources.path or path) if path else Reading(section=COMMAND_LINE)
    values, origins, wrong = _convert([*reading.settings, *_given(sources)], sources.start_folder)
    configuration = Configuration(Options(**values), origins, sources)
    faults = [*reading.faults, *wrong]
    faulty = {fault.key for fault in faults}
    if reading.section and "service" not in faulty | set(values):
        faults.append(Fault(reading.section, "service", f"found nothing, expected {OPTIONS['service'].type.expected}"))
    for complaint in complaints(configuration.options, machine, path) if machine else ():
        if faulty.isdisjoint(complaint.keys):
            faults.append(Fault(configuration.origin(complaint.keys[0]), complaint.keys[0], complaint.problem))
    return configuration, faults


def _absolute(sources: Sources) -> str | None:
    return os.path.join(sources.start_folder, sources.path) if sources.path else None


def _given(sources: Sources) -> Iterator[Setting]:
    for key, text in sources.environment.items():
        yield Setting(key, text, ENVIRONMENT)
    for key, text in sources.flags.items():
        yield Setting(key, text, flag_origin(OPTIONS[key].flags[-1]))


def _convert(settings: Iterable[Setting], start_folder: str) -> tuple[dict[str, Any], dict[str, Origin], list[Fault]]:
    """Convert the texts of ``settings``; the last setting of a key counts. Returns values, origins and faults."""
    values: dict[str, Any] = {}
    origins: dict[str, Origin] = {}
    faults = []
    for setting in settings:
        value_type = OPTIONS[setting.key].type
        try:
            values[setting.key] = value_type.anchor(value_type.parse(setting.text), start_folder)
            origins[setting.key] = setting.origin
        except ValueError as error:
            faults.append(Fault(setting.origin, setting.key, str(error)))
    return values, origins, faults


def _refuse(faults: list[Fault]) -> None:
    if faults:
        raise ConfigError([str(fault) for fault in sorted(faults, key=lambda fault: fault.origin)])
