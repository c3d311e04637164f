"""What the master tells the keeper: the options that change while it runs, and who may call it. Runs in the master."""

from __future__ import annotations

from dataclasses import asdict

from rpccluster.config.configuration import Configuration
from rpccluster.config.kept_queues import kept_queues
from rpccluster.ipc.messages import Message, Queues, Switch
from rpccluster.live_settings import NO_SETTINGS
from rpccluster.master.children.child import Child
from rpccluster.master.children.roster import Roster
from rpccluster.master.cluster import Cluster
from rpccluster.master.kinds.groups import Groups
from rpccluster.master.kinds.own_service import OwnService

__all__ = ["Queueing"]


class Queueing:
    """The conversation with the keeper, if there is one."""

    def __init__(self, cluster: Cluster, keeper: OwnService, roster: Roster) -> None:
        self._cluster = cluster
        self._keeper = keeper
        self._roster = roster
        self._told_of: Configuration | None = None  # the configuration whose queues it knows

    def introduce(self, groups: Groups) -> None:
        """Tell a keeper that has just become ready of all queues."""
        self._told_of = self._cluster.configuration
        kept = kept_queues(self._told_of)
        queues = {name: asdict(options) for name, options in kept.queues.items()}
        options = self._told_of.options
        callers = {"authkeys": options.authkey_file.text, "access": options.access}
        for child in self._keeper.processes():
            if child.ready_at is not None:
                self._roster.say(child, Queues(kept.options.create, kept.options.session_grace, queues))
                self._roster.say(child, Switch(NO_SETTINGS.number, {}, {}, callers))

    def turn(self, groups: Groups) -> None:
        """Tell the keeper of the queues if the configuration has changed."""
        if self._keeper.group is not None and self._told_of is not self._cluster.configuration:
            self.introduce(groups)

    def hear(self, message: Message, groups: Groups) -> None:
        """Take a message of the keeper, which has nothing to say yet."""

    def note_end(self, child: Child) -> None:
        """A keeper that has ended owes no answer."""
