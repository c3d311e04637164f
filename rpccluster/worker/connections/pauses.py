"""The reasons not to read a connection, for now or ever, so that a client harms itself alone. Pure; in the worker.

Several reasons may hold at once. Those that are limits are counted in ``status``, and logged.

=========  =====================================================================  =============================
pause      begins                                                                 ends
=========  =====================================================================  =============================
`TURN`     all ``max_greenlets`` runners are in calls that block                  one is back
`TURN`     it sends much, and others that do wait for their turn                  none waits
`HELD`     more than 16 of its calls, or a large one, are held back         half of them have begun
`PENDING`  more than ``max_pending_calls`` calls are unanswered                   half of them are answered
`UNREAD`   more than 1 MiB of replies wait for the peer to read                   less than 256 KiB wait
`ENDED`    end-of-file, or the worker reads nothing more                          never
`BLAMED`   three workers have crashed at its calls within a minute                ``restart_delay_max`` is over
=========  =====================================================================  =============================
"""

from __future__ import annotations

__all__ = ["BLAMED", "ENDED", "HELD", "NOT", "PENDING", "TURN", "UNREAD"]

# Plain bits: a connection that sends much has its turn thousands of times a second, and an IntFlag takes 3 µs for that.
NOT = 0
TURN = 1
PENDING = 2
UNREAD = 4
ENDED = 8
HELD = 16
BLAMED = 32
