"""Why a connection would end with its worker, as ``status`` names it. Pure."""

from __future__ import annotations

from typing import Final

__all__ = ["DESCRIPTORS", "KIND_OF_SOCKET", "LEDGER_FULL", "NEW", "NO_LEDGER", "PYTHON_ENGINE", "STARTED_WITHOUT"]

PYTHON_ENGINE: Final = "python_engine"  # runs its calls, and notes nothing
STARTED_WITHOUT: Final = "started_without"  # crash_safe was its worker
NO_LEDGER: Final = "no_ledger"  # could be made here; the log says why
DESCRIPTORS: Final = "descriptors"  # the master may hold no more
LEDGER_FULL: Final = "ledger_full"
KIND_OF_SOCKET: Final = "kind_of_socket"  # that this kernel does not count
NEW: Final = "new"  # its worker has not told of it yet, or its peer has yet to pass the challenge
