"""Checks what sections must be to each other: their order, addresses and files, and the keys of absent workers.

Knows every section, while each of them knows itself alone. Any process.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from rpccluster.address import BindAddress, PassedAddress, ProxiedAddress
from rpccluster.config.checks import Complaint, do_overlap
from rpccluster.config.origin import nearest
from rpccluster.config.sections.cluster import CLUSTER, FOR_WORKERS, OPTIONS, Options, cluster_paths
from rpccluster.config.sections.leadership import LEADERSHIP, LeadershipOptions, unreachable
from rpccluster.config.sections.plugin import PluginOptions, with_cluster
from rpccluster.config.sections.pool import PoolOptions
from rpccluster.config.sections.queues import QueueOptions, QueuesOptions, is_loopback_only
from rpccluster.config.sections.web import WEB, Sites

__all__ = ["check_together"]

_WORKERS = "workers"
_POOLS = "pools"
_QUEUES = "queues"  # the group, and the section

Found = tuple[str, Complaint]  # the header of the section at fault


def check_together(
    sections: Mapping[str, Any],
    given: Mapping[str, Collection[str]],
    files: Collection[str],
    start_folder: str,
    *,
    are_all: bool,
) -> Iterator[Found]:
    """Yield every fault of ``sections``, by their headers, that only two of them have, with the header of one.

    ``given`` are the keys that each section has itself. ``files`` are those of the configuration. Unless ``are_all``,
    other sections could not be read, so that any name may be theirs.
    """
    cluster: Options = sections[CLUSTER.name]
    plugins = {header: values for header, values in sections.items() if isinstance(values, PluginOptions)}
    pools = {header: values for header, values in sections.items() if isinstance(values, PoolOptions)}
    after = {header: plugin.after for header, plugin in plugins.items()}
    after.update(dict.fromkeys([_POOLS, *pools], ()) if pools else {})
    has_queues = any(isinstance(values, (QueuesOptions, QueueOptions)) for values in sections.values())
    after.update({_QUEUES: ()} if has_queues else {})
    after.update({LEADERSHIP.name: ()} if LEADERSHIP.name in sections else {})
    sites = Sites.of(sections)
    after.update({WEB.name: ()} if any(sites) else {})
    if cluster.service:
        after[_WORKERS] = cluster.after
    elif plugins or pools or has_queues:
        yield from _without_workers(given[CLUSTER.name])
    for header, complaint in (*(_nobodies(after) if are_all else ()), *_circles(after)):
        yield CLUSTER.name if header == _WORKERS else header, complaint
    listening = {header: values for header, values in sections.items() if isinstance(values, QueuesOptions)}
    binds: dict[str, Collection[BindAddress]] = {header: values.bind for header, values in listening.items()}
    binds.update({header: values.bind for header, values in plugins.items()})
    binds.update(sites.by_header())
    yield from _shared_addresses(cluster, binds)
    yield from _proxied(binds)
    yield from _unguarded(cluster, listening)
    yield from _shared_paths(cluster, plugins, files)
    for header, plugin in plugins.items():
        yield from ((header, complaint) for complaint in _command(with_cluster(plugin, cluster), start_folder))
    yield from _advertised(cluster, sections.get(LEADERSHIP.name))
    yield from _missing_sections(sections, plugins, pools)


def _unguarded(cluster: Options, listening: Mapping[str, QueuesOptions]) -> Iterator[Found]:
    """Find addresses of queues that other hosts reach without a key."""
    for header, queues in listening.items():
        if not cluster.authkey_file and not is_loopback_only(queues.bind):
            problem = "found an address that other hosts reach, expected authkey_file in [cluster], or loopback alone"
            yield header, Complaint(("bind",), problem)


def _missing_sections(
    sections: Mapping[str, Any], plugins: Mapping[str, PluginOptions], pools: Mapping[str, PoolOptions]
) -> Iterator[Found]:
    """Find what needs a section that is not there: the lead, or the queue that a pool drains."""
    led: dict[str, PluginOptions | PoolOptions] = {**plugins, **pools}
    for header, values in led.items():
        if values.leader_only and LEADERSHIP.name not in sections:
            problem = "found true, expected false: there is no section [leadership]"
            yield header, Complaint(("leader_only",), problem)
    for header, pool in pools.items():
        if pool.queue and f"queue:{pool.queue}" not in sections:
            problem = f"found {pool.queue!r}, expected nothing: there is no section [queue:{pool.queue}]"
            yield header, Complaint(("queue",), problem)


def _advertised(cluster: Options, leadership: LeadershipOptions | None) -> Iterator[Found]:
    """Find addresses of the cluster that stand for others, where it has to advertise them, or that stay open."""
    if leadership is None:
        return
    if leadership.scope == "cluster" and any(isinstance(each, PassedAddress) for each in cluster.listen_addresses):
        problem = "found cluster, expected methods: a standby cannot close the listeners that systemd passes (fd://)"
        yield LEADERSHIP.name, Complaint(("scope",), problem)
    if leadership.advertise:
        return
    for address in cluster.listen_addresses:
        reason = unreachable(address)
        if reason:
            problem = f"found nothing, expected addresses that others can call, since bind is {address}: {reason}"
            yield LEADERSHIP.name, Complaint(("advertise",), problem)


def _without_workers(given: Collection[str]) -> Iterator[Found]:
    for key in OPTIONS:
        if key in given and key in FOR_WORKERS:
            problem = "found a value without a service, expected none: only workers use it"
            yield CLUSTER.name, Complaint((key,), problem)


def _nobodies(after: Mapping[str, Collection[str]]) -> Iterator[Found]:
    """Find names in ``after`` that no group has."""
    own = {group.partition(":")[2] or group: group for group in after}
    for group, before in after.items():
        for name in before:
            if name not in after:
                hint = nearest(name.partition(":")[2] or name, own)
                yield group, Complaint(("after",), f"found {name!r}, expected a group or a plugin that is there{hint}")


def _circles(after: Mapping[str, Collection[str]]) -> Iterator[Found]:
    """Find each circle once: at its group that comes first in ``after``."""
    done: set[str] = set()
    for first in after:
        path = [first]
        waiting = [iter(after[first])]
        while waiting:
            group = next(waiting[-1], None)
            if group is None:
                waiting.pop()
                done.add(path.pop())
            elif group in path:
                circle = " after ".join([*path[path.index(group) :], group])
                yield path[path.index(group)], Complaint(("after",), f"found the circle {circle}, expected an order")
            elif group in after and group not in done:
                path.append(group)
                waiting.append(iter(after[group]))


def _shared_addresses(cluster: Options, others: Mapping[str, Collection[BindAddress]]) -> Iterator[Found]:
    """Find addresses of other sections that an earlier one has, too."""
    users: dict[str, Collection[BindAddress]] = {CLUSTER.name: cluster.listen_addresses}
    for header, bind in others.items():
        for address in bind:
            for user, other in ((user, other) for user, addresses in users.items() for other in addresses):
                if do_overlap(address, other):
                    yield header, Complaint(("bind",), f"found {address} beside {other} of [{user}], expected another")
        users[header] = bind


def _proxied(others: Mapping[str, Collection[BindAddress]]) -> Iterator[Found]:
    """Find addresses for proxies in sections other than that of the workers."""
    for header, bind in others.items():
        for address in bind:
            if isinstance(address, ProxiedAddress):
                yield header, Complaint(("bind",), f"found {address}, expected another: only workers take proxies")


def _shared_paths(cluster: Options, plugins: Mapping[str, PluginOptions], files: Collection[str]) -> Iterator[Found]:
    """Find files of plugins that are something else, too; a log that nobody rotates may have several writers."""
    users = {os.path.realpath(file): ("a file of the configuration", False) for file in files}
    users.update({os.path.realpath(each.path): (each.key, each.key == "log_file") for each in cluster_paths(cluster)})
    for header, plugin in plugins.items():
        path = plugin.log_file
        if path and not path.startswith("/dev/"):
            may_share = plugin.log_max_size == 0
            user, others_may = users.setdefault(os.path.realpath(path), (f"log_file of [{header}]", may_share))
            if user != f"log_file of [{header}]" and not (may_share and others_may):
                yield header, Complaint(("log_file",), f"found {path!r}, which is {user}, too, expected another path")


def _command(plugin: PluginOptions, start_folder: str) -> Iterator[Complaint]:
    """Complain of a program that is not there or that nobody may execute."""
    for program in plugin.command[:1]:
        search = plugin.env.get("PATH", os.environ.get("PATH", os.defpath))
        if os.sep not in program:
            if shutil.which(program, path=search) is None:
                yield Complaint(("command",), f"found {program!r}, expected a program in one of the folders {search}")
            continue
        path = os.path.join(plugin.chdir or start_folder, program)
        if not os.path.isfile(path):
            yield Complaint(("command",), f"found {program!r}, expected a program: no file {path} is there")
        elif not os.access(path, os.X_OK):
            yield Complaint(("command",), f"found {program!r}, expected a program: {path} is not executable")
