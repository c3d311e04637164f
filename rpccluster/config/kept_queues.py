"""What the process that keeps queues has from the configuration: the options of both kinds of sections, in one. Data.

Any process; the master makes it, and gives it to the keeper.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from rpccluster.config.configuration import Configuration
from rpccluster.config.sections.queues import QUEUES, QueueOptions, QueuesOptions

__all__ = ["KeptQueues", "are_in_a_file", "kept_queues"]

_FILE = "queues.db"


@dataclass(frozen=True)
class KeptQueues:
    """The options of ``[queues]``, those of each queue by its name, and the path of the file, if there is one."""

    options: QueuesOptions
    queues: Mapping[str, QueueOptions]
    path: str


def kept_queues(configuration: Configuration) -> KeptQueues:
    """Return what ``configuration`` says of queues. ``[queues]`` has its defaults if only ``[queue:NAME]`` is there."""
    sections = configuration.others
    options = sections.get(QUEUES.name, QueuesOptions())
    queues = {header.partition(":")[2]: own for header, own in sections.items() if isinstance(own, QueueOptions)}
    return KeptQueues(options, queues, _path(configuration, options))


def are_in_a_file(configuration: Configuration) -> bool:
    """Return whether there are queues, and this cluster keeps them in a file."""
    has_queues = any(isinstance(own, (QueuesOptions, QueueOptions)) for own in configuration.others.values())
    return has_queues and kept_queues(configuration).options.is_file


def _path(configuration: Configuration, options: QueuesOptions) -> str:
    if not options.is_file:
        return ""
    beside = configuration.options.pidfile or configuration.path or ""
    return options.path or os.path.join(os.path.dirname(os.path.abspath(beside)), _FILE)
