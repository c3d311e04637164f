"""A connection's way out: replies gather during a turn of the loop, leave in one send, wait while the peer is slow.

Runs in the worker, on the loop's callbacks. `rpccluster.worker.connections.connection` adds the way in, and the end.
"""

from __future__ import annotations

import _socket
from typing import Callable

from rpccluster.ipc.scoreboard import Cell
from rpccluster.system import MSG_NOSIGNAL
from rpccluster.worker.connections.context import ConnectionContext
from rpccluster.worker.hot.unsent import Unsent

__all__ = ["HIGH_WATER_BYTES", "Output"]

HIGH_WATER_BYTES = 1_048_576  # unsent output above which a connection's calls wait
LOW_WATER_BYTES = 262_144
GATHER_BYTES = 65_536  # of large replies, before they are sent


class Output:
    """What is sent on one socket. The engine uses ``out`` directly."""

    __slots__ = (
        "_all",
        "_forward",
        "_gathered",
        "_socket",
        "_unsent",
        "is_choked",
        "is_closed",
        "needs_look",
        "out",
        "pending",
    )

    def __init__(self, common: ConnectionContext, sock: _socket.socket) -> None:
        self._all = common
        self._socket = sock
        self._unsent: Unsent | None = None
        self._forward: Callable[[list[bytes]], None] | None = None  # where replies go when it has moved
        self._gathered = 0  # bytes of the large ones among `out`
        self.out: list[bytes] = []  # replies of this turn of the loop
        self.pending = 0  # calls decoded and not yet ended
        self.is_choked = False  # its peer does not read its replies: its calls wait
        self.is_closed = False  # not here any more
        self.needs_look = False  # flush() has more to do than to send

    def leave_to_parent(self) -> None:
        """In a forked child: the connection is the parent's, and replies go nowhere."""
        self._socket.close()
        self.is_closed = True

    # -- what the way in adds

    def close(self, reason: str = "", limit: Cell | None = None) -> None:
        """End it now."""
        raise NotImplementedError

    def _look(self) -> None:
        raise NotImplementedError

    def _choke(self) -> None:
        raise NotImplementedError

    def _unchoke(self) -> None:
        raise NotImplementedError

    # -- sending

    def gather(self, size: int) -> None:
        """A large reply of ``size`` bytes was put into ``out``: not too many of them may gather."""
        self._gathered += size
        if self._gathered > GATHER_BYTES:
            self._all.engine.handled_large = True
            self.flush()

    def flush(self) -> None:
        """Send the replies that have gathered, and do what was put off until they are. Never raises, never blocks."""
        out = self.out
        count = len(out)
        if count:
            data = out[0] if count == 1 else b"".join(out)
            self._gathered = 0
            self.pending -= count
            if self.is_closed:
                self._reply_from_afar(list(out))
                out.clear()
                return
            out.clear()  # first: what gathers from here on is of the next turn
            if self._unsent is not None:
                self._keep(memoryview(data))
            else:
                try:
                    sent = self._socket.send(data, MSG_NOSIGNAL)
                except (BlockingIOError, InterruptedError):
                    self._keep(memoryview(data))
                except OSError:
                    self._all.dropped_replies += count
                    self.close()
                else:
                    if sent != len(data):
                        self._keep(memoryview(data)[sent:])
        if self.needs_look and not self.is_closed:
            self._look()

    def _keep(self, rest: memoryview) -> None:
        """Keep what the kernel has no room for until it has."""
        if self._unsent is None:
            self._unsent = Unsent(self._all.loop, self._socket, self._on_sent, self.close)
            self._note_progress()
        self._unsent.add(rest)
        if self._unsent.size > HIGH_WATER_BYTES and not self.is_choked:
            self._choke()

    def _on_sent(self) -> None:
        """The peer has read some of what was kept."""
        assert self._unsent is not None
        size = self._unsent.size
        if size:
            self._note_progress()
        else:
            self._unsent = None
            self._all.unsent.pop(self, None)
            self._all.engine.handled_large = True
        if self.is_choked and size < LOW_WATER_BYTES:
            self._unchoke()
        if self.needs_look and not self.is_closed:
            self._look()

    def _note_progress(self) -> None:
        if self._all.options.write_timeout:
            self._all.unsent[self] = self._all.clock() + self._all.options.write_timeout

    def _reply_from_afar(self, replies: list[bytes]) -> None:
        """The connection is not here any more: another worker has it, or nobody."""
        if self._forward is not None:
            self._forward(replies)
        else:
            self._all.dropped_replies += len(replies)
