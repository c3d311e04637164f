"""What the master is doing, as one of seven phases. Data alone. Runs in the master."""

from __future__ import annotations

import enum

__all__ = ["Phase"]


class Phase(enum.Enum):
    """What the master is doing; each forbids what the next line says."""

    STARTING = "starting"  # no restarts: a worker that fails now may end it all
    STANDBY = "standby"  # a new master whose predecessor still serves: nobody accepts
    RUNNING = "running"
    DRAINED = "drained"  # WINCH: no workers until HUP, TTIN or scale
    LEAVING = "leaving"  # a new master has taken over: workers finish, nothing is started
    STOPPING = "stopping"  # graceful stop: likewise, and the listeners are closed
    QUITTING = "quitting"  # quick stop: workers are killed
