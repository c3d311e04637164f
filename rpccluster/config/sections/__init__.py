"""The sections of a configuration file: a file here describes each, and this registry names them. Any process."""

from __future__ import annotations

import re

from rpccluster.config.sections.access import ACCESS
from rpccluster.config.sections.cluster import CLUSTER
from rpccluster.config.sections.leadership import LEADERSHIP
from rpccluster.config.sections.option import Section
from rpccluster.config.sections.plugin import PLUGIN
from rpccluster.config.sections.pool import POOL
from rpccluster.config.sections.queues import QUEUE, QUEUES
from rpccluster.config.sections.settings import SETTINGS
from rpccluster.config.sections.web import METRICS, WEB

__all__ = ["CASED", "ONLY_EQUALS", "SECTIONS", "SHARED", "header_problem", "section_of"]

#: Every section by the name in its header.
_ALL = (CLUSTER, SETTINGS, PLUGIN, POOL, QUEUES, QUEUE, LEADERSHIP, ACCESS, METRICS, WEB)
SECTIONS = {each.name: each for each in _ALL}

#: The sections whose keys keep their case.
CASED = frozenset(each.name for each in SECTIONS.values() if each.is_open)

#: The sections whose keys may have colons.
ONLY_EQUALS = frozenset({ACCESS.name})

#: The header of the values that the sections of a file share.
SHARED = "DEFAULT"

_NAME = re.compile(r"[A-Za-z0-9_-]+")


def section_of(header: str | None) -> Section | None:
    """Return the section that ``header`` begins, such as ``cluster`` or ``name:NAME``; None if it is at fault."""
    return None if header is None or header_problem(header) else SECTIONS[header.partition(":")[0]]


def header_problem(header: str) -> str:
    """Say what is wrong with the header of a section; empty if nothing is."""
    name, colon, own = header.partition(":")
    section = SECTIONS.get(name)
    if section is None or (not own if section.is_named else colon):
        known = ", ".join(each.header for each in SECTIONS.values())
        return f"found an unknown section, expected {known} or [{SHARED}]{_near(name, colon + own)}"
    if own in section.reserved:
        return f"found the name {own!r}, which a group has, expected another"
    if own and not _NAME.fullmatch(own):
        return f"found the name {own!r}, expected letters, digits, - and _"
    return ""


def _near(name: str, rest: str) -> str:
    from difflib import get_close_matches  # only a faulty file needs it

    return "".join(
        f"; did you mean [{near}{rest}]?" for near in get_close_matches(name, SECTIONS, 1, 0.7) if near != name
    )
