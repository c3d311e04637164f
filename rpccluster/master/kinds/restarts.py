"""Why processes were replaced, as one of few words, for metrics. Pure; runs in the master.

The log and ``status`` say more. An end that is followed by no other process in its slot is no restart.
"""

from __future__ import annotations

import signal

from rpccluster.master.children.child import HUNG, LATE, Child
from rpccluster.master.children.deaths import Death
from rpccluster.master.children.group import Group

__all__ = ["restart_reason"]

#: The words for what the master and the processes themselves say when one is to be replaced.
_ASKED = {
    **{reason: reason for reason in ("reload", "replaced", "max_requests", "max_lifetime", "max_memory", "max_tasks")},
    "SIGTERM": "term",
    "restarted by hand": "by_hand",
    "it refuses the settings": "settings",
    "settings_changed failed": "settings",
    "limit": "limit",
}
OTHER, BOOT, CLEAN, EXIT_CODE = "other", "boot", "clean_exit", "exit_code"


def restart_reason(group: Group, child: Child, death: Death) -> str:
    """Return why ``child`` is replaced, which has just ended; empty if it is not."""
    is_wanted = group.phase.allows.wants_children and group.wants_children and child.slot < group.places
    if not is_wanted or child.slot in group.finished or death.was_at_work:
        return ""
    if death.was_asked:
        return _ASKED.get(death.reason, OTHER)
    if child.kill_reason in (HUNG, LATE):
        return child.kill_reason
    if death.is_failed_boot:
        return BOOT
    if death.exit.signal is None:
        return EXIT_CODE if death.exit.code else CLEAN
    try:
        return signal.Signals(death.exit.signal).name
    except ValueError:
        return OTHER
