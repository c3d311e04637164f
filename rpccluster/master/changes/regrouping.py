"""Carries out the part of a reload that concerns plugins, and follows it to its end. Runs in the master.

Adds, removes and revises groups; the policy starts, retires and replaces their processes. A plugin whose section has
not changed is not touched.
"""

from __future__ import annotations

from typing import cast

from rpccluster.config import Configuration
from rpccluster.master.changes.plan import Plan
from rpccluster.master.children.group import Group
from rpccluster.master.cluster import Cluster
from rpccluster.master.kinds.configured import adjust, has_group, make_group, revise, take_back
from rpccluster.master.kinds.groups import Groups
from rpccluster.master.kinds.services import own_service
from rpccluster.master.kinds.services.own_service import KINDS, OwnService, sections_of, service_group
from rpccluster.master.resources.service_listeners import services_of

__all__ = ["Regrouping"]


class Regrouping:
    """The groups that reloads add, remove or change, until each is as it was asked for."""

    def __init__(self, cluster: Cluster, groups: Groups) -> None:
        self._cluster = cluster
        self._groups = groups
        self._followed: dict[Group, float] = {}  # with the time of the change

    def begin(self, plan: Plan, changed: Configuration, now: float, *, is_reload: bool = True) -> None:
        """Carry out ``plan``, which leads to ``changed``; the cluster has that configuration already.

        What an earlier reload has begun, and this one has overtaken, is still waited for. A reload also ends the pauses
        of all groups.
        """
        edited = {edit.header for edit in plan.edits} | set(plan.replaced)
        added = [
            *(group for name in KINDS for group in self._serve(name, changed, now)),
            *(self._add(header, changed, now) for header in plan.added if has_group(changed.others.get(header))),
        ]
        for group in self._groups.all:
            headers = sections_of(group.name) if group.name in KINDS else (group.name,)
            own = next((changed.others[header] for header in headers if header in changed.others), None)
            if group.name in KINDS and group not in added and {*headers} & {*plan.added, *plan.removed}:
                own_service.revise(group, now)
            elif group.name in plan.removed:
                self._groups.remove(group)
            elif own is not None and edited & {group.name, *headers}:
                wanted = group.wanted
                (revise if group.name in plan.replaced else adjust)(group, own, now)
                if not plan.edits_key(group.name, "processes"):  # `scale` may have changed it
                    group.wanted = wanted
            elif group not in added:
                if is_reload:
                    group.forgive_pauses(now)
                continue
            self._followed[group] = now

    def _serve(self, name: str, changed: Configuration, now: float) -> list[Group]:
        """Add or remove the group of a service, which serves all sections of its own. Returns it if it was added."""
        group, is_wanted = self._groups.named(name), name in services_of(changed)
        if group is not None and not is_wanted:
            self._groups.remove(group)
            self._followed[group] = now
        elif is_wanted and (group is None or group.is_removed):
            if group is not None:
                self._groups.take_back(group)
            else:
                kind = cast(OwnService, self._groups.kinds[KINDS[name]])
                group = service_group(name, self._cluster, kind)
                self._groups.add(group)
            self._followed[group] = now
            return [group]
        return []

    def _add(self, header: str, changed: Configuration, now: float) -> Group:
        """Add the group of a new section, or take back one that has not yet ended since its section went."""
        group, own = self._groups.named(header), changed.others[header]
        if group is not None:
            self._groups.take_back(group)
            take_back(group, own, now)
            return group
        group = make_group(header, own, self._cluster, self._groups.kinds)
        self._groups.add(group)
        return group

    def is_under_way(self) -> bool:
        """Return whether a group still changes; one that has failed to get ready is not waited for."""
        return any(not self._has_failed(group) and not _is_done(group) for group in self._followed)

    def finish(self) -> str:
        """Forget what was followed. Returns which groups did not get ready, each with its reason; empty if all did."""
        failed = [group for group in self._followed if self._has_failed(group)]
        for group in self._followed:
            group.is_rolling = group.is_rolling and group in failed  # what is left to replace is tried again
        self._followed.clear()
        return "; ".join(f"{group.name} is waiting: {group.failure}" for group in failed)

    def _has_failed(self, group: Group) -> bool:
        return not _is_done(group) and bool(group.failure) and group.failed_at >= self._followed[group]


def _is_done(group: Group) -> bool:
    if group.is_removed:
        return not group.children
    is_old = group.is_rolling and any(child.generation < group.generation for child in group.children)
    return group.is_up() and not is_old
