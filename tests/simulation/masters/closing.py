"""Closes everything that a made-up master has open when it ends, as the kernel does."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from rpccluster.ipc.channel import Channel
from rpccluster.master.resources.listeners import Listener
from rpccluster.master.resources.pidfile import Pidfile
from rpccluster.master.resources.plugin_listeners import all_of
from rpccluster.master.upgrade.inherited import Inheritance

if TYPE_CHECKING:
    from .master import Master

__all__ = ["close_all_of"]


def close_all_of(master: Master) -> None:
    """Close all that a master has open, as the kernel does."""
    if master.parts is None:
        master.inbox.close()
    if master.inherited is not None:
        for thing in master.inherited:
            if thing.descriptor is not None:
                os.close(thing.descriptor)
    if master.parts is None:
        if master.inheritance is not None:
            _close_all(master.inheritance)
        return
    parts = master.parts
    parts.saving.close()
    parts.loop.close()
    master.inbox.close()
    parts.reserve.close()
    parts.upkeep.close()
    for child in list(parts.roster._children):
        child.close()
    parts.broker.close()
    parts.control.close()
    for channel in _channels(parts):
        channel.close()
    cluster, staged = parts.cluster, parts.cluster.staged
    sockets = [*cluster.listeners, *all_of(cluster.plugin_listeners), *parts.ownership._theirs]
    sockets += [*staged.listeners, *all_of(staged.plugin_listeners)] if staged else []
    for each in [*sockets, parts.control.listener]:
        if isinstance(each, Listener):
            each.socket.close()
    for each in [*parts.ownership._theirs, parts.ownership.pidfile]:
        if isinstance(each, Pidfile):
            each.close()
    for kind in parts.groups.kinds.values():
        for descriptor in (getattr(kind, "_accept_lock", -1), getattr(kind, "memory", -1)):
            if descriptor >= 0:
                os.close(descriptor)


def _close_all(inheritance: Inheritance) -> None:
    inheritance.channel.close()
    for descriptor in inheritance.memories.values():
        os.close(descriptor)
    for each in inheritance.owned():
        each.close() if isinstance(each, Pidfile) else each.socket.close()


def _channels(parts: Any) -> list[Channel]:
    new, old = parts.new_master._started, parts.old_master
    return [*([new.channel] if new else []), *([old._channel] if old else [])]
