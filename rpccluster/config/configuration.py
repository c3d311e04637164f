"""Merges the sources of the configuration into one checked set of options, or reports every fault at once.

Owns the order default < file < environment < flags, and which options a running cluster may not change. Any process.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from rpccluster.config.checks import Complaint, Machine, distrusted
from rpccluster.config.files.include import read_files
from rpccluster.config.files.reading import Reading
from rpccluster.config.origin import BUILT_IN, COMMAND_LINE, COMMANDED, ENVIRONMENT, Fault, Origin, Setting, flag_origin
from rpccluster.config.sections import SHARED, section_of
from rpccluster.config.sections.access import ACCESS, AccessOptions, access_text
from rpccluster.config.sections.cluster import CLUSTER, OPTIONS, Options
from rpccluster.config.sections.option import Effect, Option, Section
from rpccluster.config.sections.settings import SETTINGS, ServiceSettings
from rpccluster.config.sections.together import check_together
from rpccluster.errors import ConfigError
from rpccluster.live_settings import Given
from rpccluster.system.processes.launch import start_folder

__all__ = ["Configuration", "Sources", "find", "load", "refused_changes", "reload"]

_NO_PLACES: Mapping[str, Origin] = MappingProxyType({})


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

    ``options`` are those of ``[cluster]``, ``others`` those of every other section by its header. ``files`` are the
    absolute paths of the file and of those that it includes, ``marks`` those of their content when they were read.
    """

    options: Options
    origins: Mapping[str, Origin]
    sources: Sources
    others: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    marks: Mapping[str, int | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Give the workers' options the rules of ``[access]``, which stand in a section of their own."""
        text = access_text(self.others.get(ACCESS.name))
        if self.options.access != text:
            object.__setattr__(self, "options", replace(self.options, access=text))

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

    def fault(self, key: str, problem: str, header: str = CLUSTER.name) -> str:
        """Write the line of a fault in the section of ``header``: the place of ``key``'s value, key and problem."""
        return str(Fault(self.origin(key, header), key, problem))

    def value(self, key: str, header: str = CLUSTER.name) -> Any:
        """Return the value of ``key`` in the section of ``header``."""
        return _described(header).value(self.sections()[header], key)

    def text(self, key: str, header: str = CLUSTER.name) -> str:
        """Write the value of ``key`` in the section of ``header`` as a file would."""
        return _described(header).option(key).type.write(self.value(key, header))

    def settings(self, number: int) -> Given:
        """Return the texts of ``[settings]`` as the version ``number``, with their places."""
        header = SETTINGS.name
        texts = self.sections()[header].texts
        return Given(number, texts, {key: str(self.origin(key, header)) for key in texts})

    def with_settings(self, texts: Mapping[str, str], places: Mapping[str, Origin] = _NO_PLACES) -> Configuration:
        """Return this configuration with other texts in ``[settings]``.

        ``places`` are those of keys that stand in a file; what else differs was set by a command.
        """
        header = SETTINGS.name
        before = self.sections()[header].texts
        changed = {key: COMMANDED for key, text in texts.items() if before.get(key) != text}
        own = {_named(key, header): place for key, place in {**changed, **places}.items()}
        gone = {_named(key, header) for key in before.keys() - texts.keys()}
        origins = {key: place for key, place in {**self.origins, **own}.items() if key not in gone}
        made = SETTINGS.make(texts, {})
        return replace(self, others={**self.others, header: made}, origins=origins)

    def with_content(self, path: str, content: bytes) -> Configuration:
        """Return this configuration, whose file at ``path``, an absolute one, has ``content`` now."""
        return replace(self, marks={each: hash(content) if each == path else mark for each, mark in self.marks.items()})

    def every_option(self) -> Iterator[tuple[str, str, Option, Any]]:
        """Yield header, key, description and value of every option, in the order in which they are shown."""
        for header, values in self.sections().items():
            section = _described(header)
            for key in section.keys(values):
                yield header, key, section.option(key), section.value(values, key)

    def sections(self) -> dict[str, Any]:
        """Return the options of every section by its header."""
        own: dict[str, Any] = {SETTINGS.name: ServiceSettings(), ACCESS.name: AccessOptions()}
        return {CLUSTER.name: self.options, **own, **self.others}

    def describe(self) -> Iterator[tuple[str, str, str]]:
        """Yield key, value and origin of every option, as text."""
        for header, key, option, value in self.every_option():
            yield _named(key, header), option.type.write(value), str(self.origin(key, header))

    def texts(self) -> dict[str, str]:
        """Return the value of every option as text, by its name among all sections."""
        return {_named(key, header): option.type.write(value) for header, key, option, value in self.every_option()}


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
    """Read the sources of ``running`` again, for a reload.

    Raises `ConfigError` with every fault. A change of an option that a reload cannot change is one of them.
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
    """Return a fault for each option that differs although a reload cannot change it."""
    common = [
        (header, key, option, (section.value(before, key), section.value(after, key)))
        for header, section, before, after in _changed_sections(running, changed)
        for key in section.keys(after)
        if not (option := section.option(key)).is_family
    ]
    return [
        Fault(
            changed.origin(key, header),
            key,
            f"found {changed.text(key, header) or 'nothing'}, "
            f"expected {running.text(key, header) or 'nothing'} until the next start{_because(option)}",
            header,
        )
        for header, key, option, values in common
        if values[0] != values[1] and _is_fixed(option, key, values)
    ]


def _changed_sections(running: Configuration, changed: Configuration) -> Iterator[tuple[str, Section, Any, Any]]:
    """Yield the header, the description and the options, before and after, of each section that differs."""
    earlier = running.sections()
    for header, after in changed.sections().items():
        if header != SETTINGS.name and header in earlier and earlier[header] != after:
            yield header, _described(header), earlier[header], after


def _because(option: Option) -> str:
    return f": {option.reason}" if option.reason else ""


def _is_fixed(option: Option, key: str, values: tuple[Any, Any]) -> bool:
    """Return whether a reload cannot change an option so, from the first of ``values`` to the second."""
    return option.effect is Effect.RESTART or (key == "service" and "" in values)  # workers neither come nor go


def _load(sources: Sources, machine: Machine | None) -> tuple[Configuration, list[Fault]]:
    """Read ``sources``. Returns the options, faulty ones at their defaults, and every fault."""
    path = _absolute(sources)
    reading = read_files(path, sources.path or path) if path else Reading(headers={CLUSTER.name: COMMAND_LINE})
    settings = [*reading.settings, *_given(sources)]
    found = {
        header: _Found.of(header, [each for each in settings if each.section == header], reading, sources.start_folder)
        for header in {CLUSTER.name: None, **reading.headers}
    }
    made = {header: each.values for header, each in found.items()}
    files = tuple(file.path for file in reading.files)
    faults = [*reading.faults, *(fault for each in found.values() for fault in each.faults)]
    faults += _missing(reading.headers, found, faults)
    if machine is not None:
        faults += _unfit(found, faults, machine, path, files, sources.start_folder)
        faults += (Fault(file.origin(1), "config", problem) for file, problem in distrusted(reading.files, machine))
    origins = {_named(key, header): place for header, each in found.items() for key, place in each.places.items()}
    return Configuration(made.pop(CLUSTER.name), origins, sources, made, files, reading.marks), faults


@dataclass(frozen=True)
class _Found:
    """The values of one section, and where they were found; ``own`` are the keys that ``[DEFAULT]`` does not set."""

    place: Origin
    values: Any
    places: Mapping[str, Origin]
    own: frozenset[str]
    faults: list[Fault]

    @classmethod
    def of(cls, header: str, settings: list[Setting], reading: Reading, start_folder: str) -> _Found:
        """Convert ``settings``, those of the section of ``header``; the last setting of a key counts."""
        section = _described(header)
        values: dict[str, Any] = {}
        places: dict[str, Origin] = {}
        faults = []
        for setting in settings:
            value_type = section.option(setting.key).type
            try:
                value = setting.read[0] if setting.read else value_type.parse(setting.text)
                values[setting.key] = value_type.anchor(value, start_folder)
                places[setting.key] = setting.origin
            except ValueError as error:
                faults.append(Fault(setting.origin, setting.key, str(error), header))
        own = frozenset(setting.key for setting in settings if not setting.is_shared)
        made = section.make(values, reading.fields.get(header, {}))
        return cls(reading.headers.get(header, BUILT_IN), made, places, own, faults)

    def fault(self, header: str, complaint: Complaint) -> Fault:
        """Make a fault of ``complaint``: at the place of its first key, in a file at least at that of its section."""
        key = complaint.keys[0]
        return Fault(self.places.get(key, self.place), key, complaint.problem, header)


def _missing(headers: Mapping[str, Origin], found: Mapping[str, _Found], faults: list[Fault]) -> Iterator[Fault]:
    """Yield a fault for each key that a section needs and does not have."""
    is_of_others = any(_described(header).makes_processes for header in headers)
    for header, place in headers.items():
        section = _described(header)
        known = _faulty_keys(header, faults) | found[header].places.keys()
        for key in () if section is CLUSTER and is_of_others else section.required:
            if key not in known:
                how = "; a file is named by -c FILE" if place is COMMAND_LINE else ""
                yield Fault(place, key, f"found nothing, expected {section.options[key].type.expected}{how}", header)


def _unfit(
    found: Mapping[str, _Found],
    faults: list[Fault],
    machine: Machine,
    path: str | None,
    files: tuple[str, ...],
    start_folder: str,
) -> Iterator[Fault]:
    """Yield the faults that the sections have on ``machine`` and together, unless others are their cause."""
    complaints = [
        (header, complaint)
        for header, each in found.items()
        for complaint in _described(header).complaints(each.values, machine, path)
    ]
    made = {header: each.values for header, each in found.items()}
    own = {header: each.own for header, each in found.items()}
    are_all_known = not any(fault.section is None for fault in faults)
    complaints += check_together(made, own, files, start_folder, are_all=are_all_known)
    faulty = {header: _faulty_keys(header, faults) for header in found}  # before the first fault of this function
    for header, complaint in complaints:
        is_clear = faulty[header].isdisjoint(complaint.keys)
        if is_clear and (not complaint.if_given or complaint.keys[0] in found[header].own):
            yield found[header].fault(header, complaint)


def _faulty_keys(header: str | None, faults: Iterable[Fault]) -> set[str]:
    """Return the keys whose faults concern the section of ``header``."""
    return {fault.key for fault in faults if fault.section in (header, SHARED, None)}


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


def _refuse(faults: list[Fault]) -> None:
    if faults:
        raise ConfigError([str(fault) for fault in sorted(faults, key=lambda fault: fault.origin)])
