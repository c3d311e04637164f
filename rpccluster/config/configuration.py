"""Merges the sources of the configuration into one checked set of options, or reports every fault at once.

Owns the order default < file < environment < flags, and which options a running cluster may not change. Any process.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from rpccluster.config.checks import Machine
from rpccluster.config.ini import SHARED, Reading, read_ini
from rpccluster.config.origin import BUILT_IN, COMMAND_LINE, ENVIRONMENT, Fault, Origin, Setting, flag_origin
from rpccluster.config.sections import section_of
from rpccluster.config.sections.cluster import CLUSTER, OPTIONS, Options
from rpccluster.config.sections.option import Effect, Option, Section
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

    @property
    def identity(self) -> str:
        """What tells a cluster from others of this user: the path of its file; without one its flags and folder."""
        path = _absolute(self)
        if path:
            return os.path.normpath(path)
        return json.dumps([self.start_folder, sorted(self.environment.items()), sorted(self.flags.items())])


@dataclass(frozen=True)
class Configuration:
    """The options of a cluster, and the origin of each value.

    ``options`` are those of ``[cluster]``, ``others`` those of every other section by its header.
    """

    options: Options
    origins: Mapping[str, Origin]
    sources: Sources
    others: Mapping[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> str | None:
        """The absolute path of the configuration file; None without a file."""
        return _absolute(self.sources)

    def origin(self, key: str, header: str = CLUSTER.name) -> Origin:
        """Return the place where the value of ``key`` was written in the section of ``header``."""
        return self.origins.get(_named(key, header), BUILT_IN)

    def sets(self, key: str) -> bool:
        """Return whether a source gives a value to ``key`` of ``[cluster]``, be it the default's."""
        return key in self.origins

    def fault(self, key: str, problem: str) -> str:
        """Write the line of a fault in ``[cluster]``: the place of ``key``'s value, the key, and the problem."""
        return str(Fault(self.origin(key), key, problem))

    def value(self, key: str, header: str = CLUSTER.name) -> Any:
        """Return the value of ``key`` in the section of ``header``."""
        return _described(header).value(self._sections()[header], key)

    def text(self, key: str, header: str = CLUSTER.name) -> str:
        """Write the value of ``key`` in the section of ``header`` as a file would."""
        return _described(header).option(key).type.write(self.value(key, header))

    def every_option(self) -> Iterator[tuple[str, str, Option]]:
        """Yield header, key and description of every option, in the order in which they are shown."""
        for header, values in self._sections().items():
            section = _described(header)
            for key in section.keys(values):
                yield header, key, section.option(key)

    def _sections(self) -> dict[str, Any]:
        return {CLUSTER.name: self.options, **self.others}

    def describe(self) -> Iterator[tuple[str, str, str]]:
        """Yield key, value and origin of every option, as text."""
        for header, key, _ in self.every_option():
            yield _named(key, header), self.text(key, header), str(self.origin(key, header))


def load(sources: Sources, machine: Machine | None = None) -> Configuration:
    """Read and merge ``sources``; with ``machine``, also check the options against it.

    Raises `ConfigError` with every fault, in the order of file, environment and flags.
    """
    configuration, faults = _load(sources, machine)
    _refuse(faults)
    return configuration


def find(sources: Sources, key: str) -> Any:
    """Return the value that ``sources`` give to one option of ``[cluster]``; None if they give none.

    The faults of other options do not matter then: it is enough to reach a running cluster. Raises `ConfigError` if
    the option is at fault, or if a faulty file gives no value.
    """
    configuration, faults = _load(sources, None)
    if configuration.sets(key):
        return getattr(configuration.options, key)
    _refuse([fault for fault in faults if sources.path or fault.key == key])
    return None


def reload(running: Configuration, machine: Machine) -> Configuration:
    """Read the sources of ``running`` again, for a HUP.

    Raises `ConfigError` with every fault. A change of an option that a HUP cannot change is one of them.
    """
    configuration, faults = _load(running.sources, machine)
    changes = refused_changes(running, configuration)
    if faults:  # a faulty option stands at its default: that is no change
        changes = [
            change
            for change in changes
            if change.origin is not BUILT_IN and change.key not in _faulty_keys(change.section, faults)
        ]
    _refuse(faults + changes)
    return configuration


def refused_changes(running: Configuration, changed: Configuration) -> list[Fault]:
    """Return a fault for each option that differs although a HUP cannot change it."""
    common = [each for each in changed.every_option() if each[0] == CLUSTER.name or each[0] in running.others]
    return [
        Fault(
            changed.origin(key, header),
            key,
            f"found {changed.text(key, header) or 'nothing'}, "
            f"expected {running.text(key, header) or 'nothing'} until the next start",
            header,
        )
        for header, key, option in common
        if option.effect is Effect.RESTART and changed.value(key, header) != running.value(key, header)
    ]


def _load(sources: Sources, machine: Machine | None) -> tuple[Configuration, list[Fault]]:
    """Read ``sources``. Returns the options, faulty ones at their defaults, and every fault."""
    path = _absolute(sources)
    reading = read_ini(path, sources.path or path) if path else Reading(headers={CLUSTER.name: COMMAND_LINE})
    settings = [*reading.settings, *_given(sources)]
    made: dict[str, Any] = {}
    origins: dict[str, Origin] = {}
    faults = list(reading.faults)
    for header in {CLUSTER.name: None, **reading.headers}:
        section = _described(header)
        own = [setting for setting in settings if setting.section == header]
        values, places, wrong = _convert(section, own, sources.start_folder)
        faults += wrong
        faulty = _faulty_keys(header, faults)
        made[header] = section.make(values)
        origins.update({_named(key, header): place for key, place in places.items()})
        if header in reading.headers:
            faults += _missing(section, header, reading.headers[header], faulty | set(values))
        for complaint in section.complaints(made[header], machine, path) if machine else ():
            key = complaint.keys[0]
            if faulty.isdisjoint(complaint.keys):
                faults.append(Fault(places.get(key, BUILT_IN), key, complaint.problem, header))
    return Configuration(made.pop(CLUSTER.name), origins, sources, made), faults


def _faulty_keys(header: str | None, faults: Iterable[Fault]) -> set[str]:
    """Return the keys whose faults concern the section of ``header``."""
    return {fault.key for fault in faults if fault.section in (header, SHARED, None)}


def _missing(section: Section, header: str, place: Origin, known: Collection[str]) -> Iterator[Fault]:
    """Yield a fault for each key that the section at ``place`` needs and does not have."""
    for key in section.required:
        if key not in known:
            how = "; a file is named by -c FILE" if place is COMMAND_LINE else ""
            yield Fault(place, key, f"found nothing, expected {section.options[key].type.expected}{how}", header)


def _described(header: str) -> Section:
    section = section_of(header)
    assert section is not None, header  # the reader leaves unknown ones out
    return section


def _named(key: str, header: str) -> str:
    """Name an option among all sections: a key of ``[cluster]`` is its name."""
    return key if header == CLUSTER.name else f"{header}.{key}"


def _absolute(sources: Sources) -> str | None:
    return os.path.join(sources.start_folder, sources.path) if sources.path else None


def _given(sources: Sources) -> Iterator[Setting]:
    for key, text in sources.environment.items():
        yield Setting(CLUSTER.name, key, text, ENVIRONMENT)
    for key, text in sources.flags.items():
        flags = OPTIONS[key].flags
        yield Setting(CLUSTER.name, key, text, flag_origin(flags[-1]) if flags else COMMAND_LINE)


def _convert(
    section: Section, settings: Iterable[Setting], start_folder: str
) -> tuple[dict[str, Any], dict[str, Origin], list[Fault]]:
    """Convert the texts of ``settings``; the last setting of a key counts. Returns values, origins and faults."""
    values: dict[str, Any] = {}
    origins: dict[str, Origin] = {}
    faults = []
    for setting in settings:
        value_type = section.option(setting.key).type
        try:
            values[setting.key] = value_type.anchor(value_type.parse(setting.text), start_folder)
            origins[setting.key] = setting.origin
        except ValueError as error:
            faults.append(Fault(setting.origin, setting.key, str(error), setting.section))
    return values, origins, faults


def _refuse(faults: list[Fault]) -> None:
    if faults:
        raise ConfigError([str(fault) for fault in sorted(faults, key=lambda fault: fault.origin)])
