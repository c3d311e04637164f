"""The configuration: options as data, the file that sets them, and every fault with its line.

It only reads: it opens no socket or log, locks nothing and changes nothing. Any process.
"""

from __future__ import annotations

from rpccluster.config.accounts import gid_of, uid_of
from rpccluster.config.checks import Machine
from rpccluster.config.configuration import Configuration, Sources, find, load, refused_changes, reload
from rpccluster.config.cpus import CPU_AUTO, CPU_NONE, CPUChoice
from rpccluster.config.origin import Fault, Origin
from rpccluster.config.sections.cluster import OPTIONS, Options
from rpccluster.config.sections.option import Effect, Option, Section

__all__ = [
    "CPU_AUTO",
    "CPU_NONE",
    "OPTIONS",
    "CPUChoice",
    "Configuration",
    "Effect",
    "Fault",
    "Machine",
    "Option",
    "Options",
    "Origin",
    "Section",
    "Sources",
    "find",
    "gid_of",
    "load",
    "refused_changes",
    "reload",
    "uid_of",
]
