"""The sections of a configuration file: a file here describes each, and this registry names them. Any process."""

from __future__ import annotations

from rpccluster.config.sections.cluster import CLUSTER
from rpccluster.config.sections.option import Section
from rpccluster.config.sections.plugin import PLUGIN

__all__ = ["SECTIONS", "section_of"]

#: Every section by the name in its header.
SECTIONS = {each.name: each for each in (CLUSTER, PLUGIN)}


def section_of(header: str | None) -> Section | None:
    """Return the section that ``header`` begins, such as ``cluster`` or ``name:NAME``; None if it is unknown."""
    name, colon, own = (header or "").partition(":")
    section = SECTIONS.get(name)
    if section is None or (not own if section.is_named else colon):
        return None
    return section
