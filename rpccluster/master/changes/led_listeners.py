"""The listeners of a cluster that serves only while it leads: closed as long as it does not. Runs in the master.

With ``scope = cluster`` the workers run where the lead is, and there alone, and so the listeners are open. Whoever
connects elsewhere is refused at once, and knows that his call did not run. When the lead ends the master closes its
copies, and tells the workers to retire as at the end of the cluster: each takes the connections that wait, closes its
copies, and answers what it has read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from rpccluster.config.accounts import identity_of
from rpccluster.errors import ConfigError
from rpccluster.log import logger
from rpccluster.master.changes.reload import Reloading
from rpccluster.master.children.group import Group
from rpccluster.master.cluster import Cluster, is_led_whole
from rpccluster.master.resources.listeners import open_listeners
from rpccluster.master.resources.ownership import Ownership

__all__ = ["LedListeners"]

_AGAIN_SECONDS = 1.0


class LedListeners:
    """Opens and closes the cluster's listeners as the lead comes and goes."""

    def __init__(
        self,
        cluster: Cluster,
        workers: Group,
        ownership: Ownership,
        reloading: Reloading,
        prepared: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._cluster = cluster
        self._workers = workers
        self._ownership = ownership
        self._reloading = reloading
        self._prepared = prepared
        self._fault = ""
        self._again_at = -math.inf
        #: When `turn` must be called if nothing happens before (monotonic seconds).
        self.wake_at = math.inf

    def turn(self, groups: Sequence[Group], now: float) -> str:
        """Have the listeners open or closed. Returns why groups that need the lead may not run; empty if they may."""
        cluster = self._cluster
        self._workers.needs_lead = is_whole = is_led_whole(cluster.configuration)
        self.wake_at = math.inf
        if not [group for group in groups if group.needs_lead]:
            return ""
        unled = cluster.unled
        if not unled:
            self.wake_at = now + cluster.lead.left_seconds
        allows = cluster.phase.allows
        if not is_whole or not allows.wants_children or allows.needs_all_children:
            return unled
        if unled:
            self._close(unled)
        elif not cluster.listeners and cluster.options.service:
            return self._open(now)
        return unled

    def _close(self, reason: str) -> None:
        self._fault, self._again_at = "", -math.inf
        if self._cluster.listeners:
            logger.info("Closing the listeners: %s", reason)
            self._reloading.give_up(f"overtaken: {reason}")
            self._ownership.close_listeners()

    def _open(self, now: float) -> str:
        """Open the listeners. Returns why that has failed; it is tried again after a pause."""
        if now < self._again_at:
            self.wake_at = min(self.wake_at, self._again_at)
            return self._fault
        cluster = self._cluster
        options = cluster.options
        try:
            with self._prepared():
                owner = identity_of(options.user, options.group)
                opened = open_listeners(options, owner, [], cluster.configuration.fault, cluster.activation)
        except ConfigError as error:
            if self._fault != str(error):
                logger.error("Cannot serve, though this cluster leads: %s", error)
            self._fault, self._again_at = str(error), now + _AGAIN_SECONDS
            self.wake_at = min(self.wake_at, self._again_at)
            return self._fault
        self._fault = ""
        cluster.listeners.extend(opened)
        for listener in opened:
            logger.info("Listening at: %s", listener.actual)
        return ""
