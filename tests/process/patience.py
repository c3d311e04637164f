"""How long tests wait for what is promised in a time: that time at full scale, else as long as a busy machine takes."""

from __future__ import annotations

import os

__all__ = ["FULL_SCALE", "within"]

FULL_SCALE = bool(os.environ.get("RPCCLUSTER_FULL_SCALE"))
PATIENCE_SECONDS = 30.0


def within(seconds: float) -> float:
    """Return ``seconds`` at full scale, on a machine that does nothing else; else a generous time."""
    return seconds if FULL_SCALE else max(seconds, PATIENCE_SECONDS)
