"""The listeners of plugins: opened as the cluster's are, owned by the master, inherited by the plugins' processes.

They are kept by the header of their section, and beside them those of the package's own services by their group. A
restart refuses no connection, since they stay open here. Plugins get them blocking, as from systemd. O_NONBLOCK belongs
to the open socket, which all processes share: a program that sets it changes it for its successors, too. So it is set
back whenever no process of the plugin runs.
Runs in the master.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

from rpccluster.config.accounts import identity_of
from rpccluster.config.configuration import Configuration
from rpccluster.config.sections.plugin import PluginOptions, with_cluster
from rpccluster.errors import ConfigError
from rpccluster.master.resources.listeners import Listener, bind_again, close_listeners, open_at
from rpccluster.master.resources.service_listeners import bind_service_again, open_service_listeners, services_of
from rpccluster.system.processes.identity import Identity

__all__ = ["PluginListeners", "all_of", "bind_plugin_again", "missing", "open_plugin_listeners", "set_blocking"]

#: By the header of the section.
PluginListeners = Mapping[str, list[Listener]]


def open_plugin_listeners(configuration: Configuration, present: PluginListeners) -> dict[str, list[Listener]]:
    """Return the listeners of all groups of ``configuration`` but the workers: ``present`` ones, and newly opened.

    An address may go from one plugin to another. Raises `ConfigError` with a line for each address that cannot be had,
    and opens nothing then.
    """
    plugins = {header: each for header, each in configuration.others.items() if isinstance(each, PluginOptions)}
    free = [
        listener
        for header, listeners in present.items()
        for listener in listeners
        if header.startswith("plugin:")
        if header not in plugins or not {listener.wanted, listener.actual} & set(plugins[header].bind)
    ]
    found: dict[str, list[Listener]] = {}
    faults: list[str] = []
    for header, options in plugins.items():
        if options.bind:
            try:
                found[header] = _open(configuration, header, options, [*free, *present.get(header, [])])
            except ConfigError as error:
                faults.append(str(error))
    for group in services_of(configuration):
        try:
            found[group] = open_service_listeners(configuration, group, present.get(group, []))
        except ConfigError as error:
            faults.append(str(error))
    if faults:
        close_listeners(missing(found, present), is_last=True)
        raise ConfigError(faults)
    return found


def _open(configuration: Configuration, header: str, options: PluginOptions, known: list[Listener]) -> list[Listener]:
    owner, fault = _owner(configuration, options), partial(configuration.fault, header=header)
    listeners = open_at(options.bind, configuration.options, owner, known, fault)
    set_blocking(each for each in listeners if each not in known)
    return listeners


def _owner(configuration: Configuration, options: PluginOptions) -> Identity | None:
    filled = with_cluster(options, configuration.options)
    return identity_of(filled.user, filled.group)


def bind_plugin_again(listener: Listener, configuration: Configuration, header: str) -> None:
    """Bind the Unix listener of a group again whose path somebody has removed. Raises OSError, and changes nothing."""
    own = configuration.others.get(header)
    if not isinstance(own, PluginOptions):
        bind_service_again(listener, configuration)
        return
    bind_again(listener, configuration.options, _owner(configuration, own))
    set_blocking([listener])


def set_blocking(listeners: Iterable[Listener]) -> None:
    """Let accept(2) wait at ``listeners``, in whatever process."""
    for listener in listeners:
        listener.socket.setblocking(True)


def all_of(listeners: PluginListeners) -> list[Listener]:
    """Return the listeners of all plugins."""
    return [listener for each in listeners.values() for listener in each]


def missing(listeners: PluginListeners, others: PluginListeners) -> list[Listener]:
    """Return those of ``listeners`` that are not among ``others``."""
    kept = all_of(others)
    return [listener for listener in all_of(listeners) if listener not in kept]
