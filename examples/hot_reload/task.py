"""The task that all ways run: it says what its configuration says, now and then."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import rpccluster

SETTINGS = {
    "text": rpccluster.Setting(str, "tick", "what is said"),
    "every": rpccluster.Setting(float, 1.0, "seconds between two times"),
}


def say(who: str, config: Mapping[str, Any]) -> None:
    print(f"{time.time():.3f} {who} says {config['text']}", flush=True)


def check(new: Mapping[str, Any]) -> None:
    """Refuse values that would stop the task; none of the processes takes them then."""
    if new["every"] <= 0:
        raise ValueError(f"found every = {new['every']}, expected more than 0 seconds")
