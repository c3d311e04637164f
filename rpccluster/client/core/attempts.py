"""Whether a call whose connection ended is sent again, and which error its caller gets in the end. Pure.

The rule: what certainly did not run is sent again, what may have run only if the caller calls it idempotent.
Both faces and the pool keep to it.
"""

from __future__ import annotations

from typing import Union

from rpccluster.errors import ConnectFailed, ConnectionLost, Lost

__all__ = ["Attempts", "Unreached"]

#: What ends an attempt without a word from the server.
Unreached = Union[ConnectionLost, ConnectFailed]


class Attempts:
    """The attempts at one call. There are some more when there are several ``connections``: each may have ended."""

    def __init__(self, idempotent: bool, connections: int = 1) -> None:
        self._idempotent = idempotent
        self._left = 2 + connections
        self._error: Unreached | None = None

    def may_go_on(self, error: Unreached) -> bool:
        """Note how an attempt ended; say whether there may be another one."""
        if self._error is None or (isinstance(error, Lost) and not isinstance(self._error, Lost)):
            self._error = error
        self._left -= 1
        if self._left <= 0 or isinstance(error, ConnectFailed):
            return False
        return self._idempotent or not isinstance(error, Lost)

    @property
    def last_error(self) -> Unreached | None:
        """Likewise; None if no attempt has ended."""
        return self._error

    @property
    def error(self) -> Unreached:
        """What to tell the caller: once an attempt was lost the call may have run, however the others ended."""
        assert self._error is not None, "no attempt has ended yet"
        return self._error
