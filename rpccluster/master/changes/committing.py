"""Brings a change into force at one stroke: configuration, listeners, logs, settings and live options. In the master.

The policy then replaces processes, and `regrouping` follows plugins.
"""

from __future__ import annotations

from typing import Any

from rpccluster.config import OPTIONS, Effect, Options
from rpccluster.ipc.messages import Switch
from rpccluster.log import LogFiles, logger, set_format, set_up_logging
from rpccluster.master.changes.change import Change
from rpccluster.master.changes.pushing import Pushing
from rpccluster.master.changes.regrouping import Regrouping
from rpccluster.master.children.group import Group
from rpccluster.master.cluster import Cluster
from rpccluster.master.kinds.groups import Groups
from rpccluster.master.phases import Event
from rpccluster.master.resources.listeners import apply_options, close_listeners
from rpccluster.master.resources.plugin_listeners import missing
from rpccluster.master.resources.service_listeners import tell_children
from rpccluster.system import System

__all__ = ["Committing", "live_values"]


class Committing:
    """The commits of one cluster's changes."""

    def __init__(
        self, operating_system: System, cluster: Cluster, workers: Group, groups: Groups, pushing: Pushing
    ) -> None:
        self._system = operating_system
        self._cluster = cluster
        self._workers = workers
        self._groups = groups
        self._pushing = pushing
        self._regrouping = Regrouping(cluster, groups)

    def commit(self, change: Change, now: float) -> None:
        """Make the configuration of ``change`` the cluster's, and tell all processes."""
        cluster, staged, plan = self._cluster, change.staged, change.plan
        present = cluster.options
        self._use_listeners(change)
        cluster.configuration, cluster.generation = staged.configuration, staged.generation
        cluster.settings_version = staged.settings_version
        cluster.history = change.history or cluster.history
        self._use_logs(staged.logs, present)
        if change.is_beyond_settings:
            self._apply(change, now)
        if plan.changes_anything:
            self._tell(plan.pushes)
            logger.info("Settings: version %d (%s)", cluster.settings_version, change.author.command)
        for line in plan.lines() if change.is_reload else ():
            logger.info("Reload: %s", line)
        if change.is_reload:
            logger.info("Reloaded the configuration (generation %d)", cluster.generation)

    def is_under_way(self) -> bool:
        """Return whether a group still changes."""
        return self._regrouping.is_under_way()

    def finish(self) -> str:
        """Forget the groups that have changed. Returns which did not get ready; empty if all did."""
        return self._regrouping.finish()

    def _use_listeners(self, change: Change) -> None:
        cluster, staged = self._cluster, change.staged
        if not change.is_beyond_settings:
            return
        close_listeners([each for each in cluster.listeners if each not in staged.listeners], is_last=True)
        apply_options([each for each in cluster.listeners if each in staged.listeners], staged.configuration.options)
        cluster.listeners[:] = staged.listeners
        close_listeners(missing(cluster.plugin_listeners, staged.plugin_listeners), is_last=True)
        cluster.plugin_listeners.clear()
        cluster.plugin_listeners.update(staged.plugin_listeners)
        tell_children(cluster.plugin_listeners)

    def _apply(self, change: Change, now: float) -> None:
        """Have the policy bring the groups to what their options say."""
        cluster, plan, workers = self._cluster, change.plan, self._workers
        self._system.set_title(cluster.title)
        workers.after = cluster.options.after
        if change.is_reload or plan.moves_workers:
            if change.is_reload or plan.edits_key("cluster", "number_workers"):
                workers.wanted = cluster.options.number_workers
            workers.roll(now)
            cluster.note(Event.WANTED)
        self._regrouping.begin(plan, cluster.configuration, now, is_reload=change.is_reload)

    def _use_logs(self, logs: LogFiles, present: Options) -> None:
        cluster = self._cluster
        if logs is not cluster.logs:
            self._pushing.lead_logs(logs)
            cluster.logs.close()
            cluster.logs = logs
            if cluster.options.daemonize:
                self._hold_output()
        elif all(getattr(cluster.options, name) == getattr(present, name) for name in ("log_level", "log_format")):
            return
        set_format(cluster.options.log_format)
        set_up_logging(logs, cluster.options.log_level)

    def _hold_output(self) -> None:
        try:
            self._cluster.logs.hold_output()
        except OSError as error:  # too late to refuse: they stay as they are
            logger.error("Cannot lead stdout and stderr to the log: %s", error)

    def _tell(self, are_settings_new: bool) -> None:
        given = self._cluster.settings
        options = live_values(self._cluster.options)
        self._pushing.switch(Switch(given.number, dict(given.texts), dict(given.places), options))
        if are_settings_new:
            self._pushing.tell_commands()


def live_values(options: Options) -> dict[str, Any]:
    """Return the options that running processes take over, by their keys."""
    live = (key for key, option in OPTIONS.items() if option.effect is Effect.NOW)
    values = {key: getattr(options, key) for key in live}
    plain = {key: value for key, value in values.items() if isinstance(value, (bool, int, float, str))}
    return {**plain, "authkeys": options.authkey_file.text, "access": options.access}
