"""What the master and the keeper say to each other: options that change while it runs, who may call it, how many items
there are. Runs in the master.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Callable

from rpccluster.config.configuration import Configuration
from rpccluster.config.kept_queues import kept_queues
from rpccluster.ipc.messages import Message, Queues, Switch
from rpccluster.live_settings import NO_SETTINGS
from rpccluster.master.children.child import Child
from rpccluster.master.children.roster import Roster
from rpccluster.master.cluster import Cluster
from rpccluster.master.kinds.groups import Groups
from rpccluster.master.kinds.services.asking import Asking, Told
from rpccluster.master.kinds.services.own_service import OwnService
from rpccluster.protocol.codec import make_packer, unpack

__all__ = ["ANSWER_SECONDS", "Queueing"]

ANSWER_SECONDS = 30.0  # that a method of the control socket waits for the keeper
COUNT_SECONDS = 0.5  # that ``status`` does


class Queueing:
    """The conversation with the keeper, if there is one."""

    def __init__(self, cluster: Cluster, keeper: OwnService, roster: Roster, asking: Asking) -> None:
        self._cluster = cluster
        self._keeper = keeper
        self._roster = roster
        self._asking = asking
        self._told_of: Configuration | None = None  # the configuration whose queues it knows

    def _present(self) -> list[Child]:
        return [child for child in self._keeper.processes() if child.ready_at is not None]

    def introduce(self, groups: Groups) -> None:
        """Tell a keeper that has just become ready of all queues."""
        self._told_of = self._cluster.configuration
        kept = kept_queues(self._told_of)
        queues = {name: asdict(options) for name, options in kept.queues.items()}
        options = self._told_of.options
        callers = {"authkeys": options.authkey_file.text, "access": options.access}
        for child in self._present():
            self._roster.say(child, Queues(kept.options.create, kept.options.session_grace, queues))
            self._roster.say(child, Switch(NO_SETTINGS.number, {}, {}, callers))

    def turn(self, groups: Groups) -> None:
        """Tell the keeper of the queues if the configuration has changed."""
        if self._keeper.group is not None and self._told_of is not self._cluster.configuration:
            self.introduce(groups)

    def ask(self, what: str, params: list[Any], told: Told, seconds: float = ANSWER_SECONDS) -> None:
        """Ask the keeper for ``queue.WHAT``; ``told`` gets the text of an error, or the answer as MessagePack bytes."""
        present = self._present()
        if not present:
            reason = "the keeper is not ready" if self._keeper.group else "there is no section [queues] or [queue:NAME]"
            told(f"RuntimeError: {reason}", None)
        else:
            self._asking.ask(present[-1], what, [make_packer().pack(params)], told, seconds)

    def count(self, told: Callable[[list[dict[str, Any]] | None], object]) -> None:
        """Ask for the counts of all queues; ``told`` gets None if the keeper does not say them at once."""

        def note(error: str, found: Any) -> None:
            told(None if error else unpack(found))

        self.ask("list", [], note, COUNT_SECONDS)

    def hear(self, message: Message, groups: Groups) -> None:
        """Take a message of the keeper, which has nothing to say yet."""

    def note_end(self, child: Child) -> None:
        """A keeper that has ended owes no answer."""
