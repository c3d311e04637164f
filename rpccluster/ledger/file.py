"""The file of a ledger, as the master has it: made at its full size, sealed, read, never mapped. Runs in the master."""

from __future__ import annotations

import os

from rpccluster.ledger.layout import Shape
from rpccluster.system import sealed_memory_file

__all__ = ["LedgerFile"]


class LedgerFile:
    """The ledger of one worker."""

    def __init__(self, shape: Shape) -> None:
        """Raises OSError if there can be none here."""
        self.shape = shape
        self.descriptor = sealed_memory_file(shape.size, "ledger")

    def read(self, place: int, length: int) -> bytes:
        """Return ``length`` bytes from ``place`` on; fewer if the file is shorter. Raises OSError."""
        return os.pread(self.descriptor, length, place)

    def close(self) -> None:
        """Close this process's descriptor."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
