"""The engine that keeps queues in one SQLite file: group commit, checkpoints in pieces, one keeper a file."""

from __future__ import annotations

from rpccluster.queues.sqlite.engine import SQLiteEngine

__all__ = ["SQLiteEngine"]
