"""What the caller gets whose worker is killed: an error on its connection; with the Python engine, the end of that."""

from __future__ import annotations

from typing import Any

import pytest

from rpccluster import ConnectionLost, RemoteError
from rpccluster.worker.hot.choice import why_not_compiled

__all__ = ["WORKER_LOST", "raises_worker_lost"]

WORKER_LOST = "WorkerLost: the worker that ran this call has died"


def raises_worker_lost() -> Any:
    """Expect it, as `pytest.raises` does."""
    if why_not_compiled():
        return pytest.raises(ConnectionLost)
    return pytest.raises(RemoteError, match=f"^{WORKER_LOST}$")
