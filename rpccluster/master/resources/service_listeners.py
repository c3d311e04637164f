"""The listeners of services of the package's own: private Unix sockets beside the control socket. Runs in the master.

The section of a service may name other addresses. The listeners are kept with those of the plugins, by the name of
their group, so that a reload, an upgrade and a removed path treat them alike. Every process below the master finds the
address of a service in its environment.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from rpccluster import control_path
from rpccluster.address import BindAddress, UnixAddress
from rpccluster.config.accounts import identity_of
from rpccluster.config.configuration import Configuration
from rpccluster.config.sections.cluster import Options
from rpccluster.config.sections.queues import QueueOptions, QueuesOptions
from rpccluster.config.sections.web import Sites
from rpccluster.control_path import socket_name
from rpccluster.errors import ConfigError
from rpccluster.master.resources.listeners import Listener, bind_again, close_listeners, open_at
from rpccluster.system.processes.identity import Identity

__all__ = [
    "LEADERSHIP",
    "POOLS",
    "QUEUES",
    "WEB",
    "bind_service_again",
    "open_service_listeners",
    "services_of",
    "tell_children",
]

LEADERSHIP = "leadership"  # the group of the coordinator, and its section
POOLS = "pools"  # the group of the dispatcher
QUEUES = "queues"  # that of the keeper, and its section
WEB = "web"  # that of the process that serves [metrics] and [web]

_MODE = 0o600
_VARIABLES = {POOLS: "RPCCLUSTER_POOLS", QUEUES: "RPCCLUSTER_QUEUES"}  # by the group


def services_of(configuration: Configuration) -> list[str]:
    """Return the groups of services that the sections of ``configuration`` need."""
    sections = configuration.others
    has_queues = any(isinstance(own, (QueuesOptions, QueueOptions)) for own in sections.values())
    has_pools = any(header.startswith("pool:") for header in sections)
    wanted = {QUEUES: has_queues, LEADERSHIP: LEADERSHIP in sections, POOLS: has_pools, WEB: any(Sites.of(sections))}
    return [group for group, is_wanted in wanted.items() if is_wanted]


def open_service_listeners(configuration: Configuration, group: str, present: Sequence[Listener]) -> list[Listener]:
    """Return the listeners of the service ``group``, its private one first. Raises `ConfigError`, and opens none then.

    They are ``present`` ones, and newly opened. The group ``web`` has no private one.
    """
    options, known = configuration.options, list(present)
    owner = identity_of(options.user, options.group)
    if group == WEB:
        return _open_sites(configuration, owner, known)
    private = known[:1] or _open_private(configuration, group, owner)
    fault = partial(configuration.fault, header=group)
    try:
        named = open_at(_named(configuration, group), _private(options), owner, known[1:], fault)
    except ConfigError:
        close_listeners([each for each in private if each not in known], is_last=True)
        raise
    return [*private, *named]


def _open_sites(configuration: Configuration, owner: Identity | None, known: list[Listener]) -> list[Listener]:
    """Open what ``[metrics]`` and ``[web]`` bind; a Unix socket has the mode of the cluster's own."""
    found: list[Listener] = []
    for header, bind in Sites.of(configuration.others).by_header().items():
        try:
            found += open_at(bind, configuration.options, owner, known, partial(configuration.fault, header=header))
        except ConfigError:
            close_listeners([each for each in found if each not in known], is_last=True)
            raise
    return found


def _open_private(configuration: Configuration, group: str, owner: Identity | None) -> list[Listener]:
    options = configuration.options
    faults: list[str] = []
    for path in _paths(configuration, group, owner):
        try:
            if not options.control_socket:
                control_path.make_folder(os.path.dirname(path), owner.uid if owner else None)
            return open_at([UnixAddress(path)], _private(options), owner, [])
        except (OSError, ConfigError) as error:
            faults.append(str(error))
    raise ConfigError([f"no socket for the group {group}: {'; '.join(faults)}"])


def _named(configuration: Configuration, group: str) -> tuple[BindAddress, ...]:
    """Return the further addresses that the section of a service names."""
    named: tuple[BindAddress, ...] = getattr(configuration.others.get(group), "bind", ())
    return named


def bind_service_again(listener: Listener, configuration: Configuration) -> None:
    """Bind the listener of a service again whose path somebody has removed. Raises OSError, and changes nothing."""
    options = configuration.options
    is_public = listener.wanted in Sites.of(configuration.others).addresses()
    own = options if is_public else _private(options)
    bind_again(listener, own, identity_of(options.user, options.group))


def _private(options: Options) -> Options:
    return replace(options, unix_socket_mode=_MODE)


def _paths(configuration: Configuration, group: str, owner: Identity | None) -> list[str]:
    """Return where the socket may lie, the best path first: one ending that no command takes for a control socket."""
    options = configuration.options
    if options.control_socket:
        return [f"{options.control_socket.removesuffix('.sock')}.{group}"]
    name = socket_name(options.proc_name, configuration.sources.identity).removesuffix(".sock")
    return [os.path.join(folder, f"{name}.{group}") for folder in control_path.folders(owner.uid if owner else None)]


def tell_children(listeners: Mapping[str, Sequence[Listener]]) -> None:
    """Put the addresses of the services into the environment of all processes that start from now on."""
    for group, variable in _VARIABLES.items():
        addresses = [str(listener.actual) for listener in listeners.get(group, ())]
        if addresses:
            os.environ[variable] = addresses[0]
        else:
            os.environ.pop(variable, None)
