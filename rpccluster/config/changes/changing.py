"""Changes values of a configuration that is in force, without its file: for a command that sets them. Any process.

The result is checked as a file's content is; only faults that the change brings count.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import Any

from rpccluster.config.checks import Complaint, Machine
from rpccluster.config.configuration import Configuration, refused_changes
from rpccluster.config.origin import BUILT_IN, COMMANDED, Fault, Origin, nearest
from rpccluster.config.sections import section_of
from rpccluster.config.sections.access import AccessOptions
from rpccluster.config.sections.cluster import CLUSTER
from rpccluster.config.sections.option import Section
from rpccluster.config.sections.settings import SETTINGS, ServiceSettings
from rpccluster.config.sections.together import check_together
from rpccluster.errors import ConfigError

__all__ = ["commanded", "divided", "texts", "with_values"]

_OF_FILES = "include"


def divided(name: str) -> tuple[str, str]:
    """Divide the name of an option among all sections into the header of its section and its key there."""
    header, dot, key = name.partition(".")
    return (header, key) if dot else (CLUSTER.name, name)


def texts(configuration: Configuration) -> dict[str, str]:
    """Return the texts of all values, by their names among all sections, such as ``settings.price``."""
    return configuration.texts()


def commanded(configuration: Configuration) -> dict[str, str]:
    """Return the texts of the options that commands have set, by their names; settings are left out."""
    described = configuration.describe()
    return {
        name: text
        for name, text, _ in described
        if divided(name)[0] != SETTINGS.name and configuration.origins.get(name) is COMMANDED
    }


def with_values(
    running: Configuration,
    changes: Mapping[str, str | None],
    machine: Machine,
    places: Mapping[str, Origin] | None = None,
) -> Configuration:
    """Return ``running`` with the texts of ``changes``, by their names; None takes a value away.

    ``places`` are those of texts that stand in a file; a command has set the others. Raises `ConfigError` with every
    fault that ``running`` has not; a change that has to wait for the next start is one.
    """
    sections, origins, faults = running.sections(), dict(running.origins), []
    for name, text in changes.items():
        header, key = divided(name)
        try:
            sections[header] = _with_value(sections, header, key, text, running)
        except ValueError as error:
            faults.append(Fault(COMMANDED, name, str(error)))
            continue
        origins.pop(_named(header, key), None)
        if text is not None:
            origins[_named(header, key)] = (places or {}).get(name, COMMANDED)
    changed = replace(running, options=sections.pop(CLUSTER.name), others=sections, origins=origins)
    if not faults:
        faults = _new_faults(running, changed, machine) + refused_changes(running, changed)
    if faults:
        raise ConfigError([str(fault) for fault in faults])
    return changed


def _with_value(sections: Mapping[str, Any], header: str, key: str, text: str | None, running: Configuration) -> Any:
    """Return the section of ``header`` with another text for ``key``. Raises ValueError."""
    section, values = section_of(header), sections.get(header)
    if section is None or values is None:
        raise ValueError(f"found no section [{header}], expected one that is there{nearest(header, sections)}")
    if not key or not section.knows(key):
        raise ValueError(f"found an unknown key, expected an option{_meant(sections, header, key)}")
    if section is CLUSTER and key == _OF_FILES:
        raise ValueError("found a new list of files, expected a reload: that alone reads files")
    present = {each: section.value(values, each) for each in section.keys(values)}
    present.pop(key, None)
    if text is not None:
        option = section.option(key)
        present[key] = option.type.anchor(option.type.parse(text), running.sources.start_folder)
    return section.make(present, _beside_options(section, values))


def _meant(sections: Mapping[str, Any], header: str, key: str) -> str:
    """Say which key may be meant: one of the settings, if they have it, else the nearest one."""
    if header == CLUSTER.name and key in getattr(sections.get("settings"), "texts", ()):
        return f"; did you mean settings.{key}?"
    section = section_of(header)
    return "" if section is None else nearest(key, section.names(key))


def _beside_options(section: Section, values: Any) -> dict[str, Any]:
    """Return the fields of ``values`` that describe no option."""
    if section.is_open or isinstance(values, (AccessOptions, ServiceSettings)):
        return {}
    return {each.name: getattr(values, each.name) for each in fields(values) if "option" not in each.metadata}


def _named(header: str, key: str) -> str:
    return key if header == CLUSTER.name else f"{header}.{key}"


def _new_faults(running: Configuration, changed: Configuration, machine: Machine) -> list[Fault]:
    """Return the faults of ``changed`` that ``running`` has not."""
    known = list(_complaints(running, machine))
    return [
        Fault(changed.origin(complaint.keys[0], header), _named(header, complaint.keys[0]), complaint.problem, header)
        for header, complaint in _complaints(changed, machine)
        if (header, complaint) not in known
    ]


def _complaints(configuration: Configuration, machine: Machine) -> Iterator[tuple[str, Complaint]]:
    sections = configuration.sections()
    given = {
        header: frozenset(key for key in _keys(header, values) if configuration.origin(key, header) is not BUILT_IN)
        for header, values in sections.items()
    }
    found = [
        *(
            (header, complaint)
            for header, values in sections.items()
            for complaint in _described(header).complaints(values, machine, configuration.path)
        ),
        *check_together(sections, given, configuration.files, configuration.sources.start_folder, are_all=True),
    ]
    for header, complaint in found:
        if not complaint.if_given or complaint.keys[0] in given[header]:
            yield header, complaint


def _keys(header: str, values: Any) -> Iterator[str]:
    return _described(header).keys(values)


def _described(header: str) -> Section:
    section = section_of(header)
    assert section is not None, header  # it stands in a configuration
    return section
