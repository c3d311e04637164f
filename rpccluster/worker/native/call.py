"""A call that runs beside the greenlets, in a native thread or on the asyncio loop. Runs in the worker.

The greenlet that takes the call hands it over and is free again: the call is one that is answered later. Its result is
packed where it was made. The hub alone counts: how many calls of a kind there are, and which have ended.
"""

from __future__ import annotations

from typing import Any, Callable, NoReturn, Protocol

from greenlet import getcurrent

from rpccluster.identity import Identity
from rpccluster.ipc.scoreboard import Cell
from rpccluster.live_settings import Version, settings
from rpccluster.service import Later
from rpccluster.worker.current import NATIVE_CALL
from rpccluster.worker.native.wake import Wake
from rpccluster.worker.service.later import HeldBack
from rpccluster.worker.service.registry import Entry

__all__ = ["NativeCall", "NativeKind", "Owner"]


class Owner(Protocol):
    """What has the kinds, and hears of them in the hub."""

    def note_room(self) -> None:
        """Note that calls which were held back may begin."""

    def note_held_back(self, limit: Cell) -> None:
        """Note that a call was held back by ``limit``."""

    def note_lost(self, lost: int, threads: int) -> None:
        """Note that ``lost`` of ``threads`` threads run methods whose calls are over."""


class NativeKind:
    """A kind of calls that run beside the greenlets; made in the hub's thread. Subclasses run the calls."""

    limit: Cell  # that counts the calls that were held back

    def __init__(self, hub_loop: Any, most: int, owner: Owner) -> None:
        """At most ``most`` calls of it are there at once."""
        self._most = most
        self._owner = owner
        self._late = Wake(hub_loop, self._take_back)
        self.taken = 0  # calls that were handed over and have not come back, answered or not

    @property
    def room(self) -> int:
        """Number of calls that may begin now."""
        return self._most - self.taken

    def close(self) -> None:
        """Let go of what another process cannot have."""
        self._late.close()

    def set_most(self, most: int) -> None:
        """Allow ``most`` calls from now on."""
        self._most = most
        self._owner.note_room()

    def entry(self, method: Callable[..., Any]) -> Entry:
        """Return the way into ``method``. A call that is held back must not have begun its time limit."""

        def hands_over_in_turn(*params: Any) -> Any:
            if self.taken >= self._most:
                self.hold_back()
            self.hand_over(method, params)

        def outer(wrapped: Callable[..., Any]) -> Callable[..., Any]:
            if wrapped is hands_over_in_turn:  # it has neither a limit nor a log
                return wrapped

            def begins_in_turn(*params: Any) -> Any:
                if self.taken >= self._most:
                    self.hold_back()
                return wrapped(*params)

            return begins_in_turn

        return Entry(hands_over_in_turn, outer)

    def hand_over(self, method: Callable[..., Any], params: tuple[Any, ...]) -> NoReturn:
        """Hand the call that the present runner runs over to a thread. Raises `Parked`."""
        raise NotImplementedError

    def hold_back(self) -> NoReturn:
        """Hold the call back that the present runner runs. Raises `HeldBack`."""
        self._owner.note_held_back(self.limit)
        raise HeldBack(self)

    def come_late(self, call: NativeCall) -> None:
        """Take note that ``call``, which was over before, has come back. Runs in any thread."""
        self._late.put((call,))

    # -- in the hub

    def note_over(self, call: NativeCall) -> None:
        """Note that ``call`` is answered without its result; it comes back later."""
        raise NotImplementedError

    def note_back(self, call: NativeCall) -> None:
        """Note that ``call`` has come back."""
        self.taken -= 1

    def _take_back(self, call: NativeCall) -> None:
        self.note_back(call)
        self._owner.note_room()


class NativeCall(Later):
    """A call that runs beside the greenlets, and its face for `rpccluster.current_call`."""

    __slots__ = ("_limit", "_outbox", "cancelled", "kind", "method", "msgid", "settings", "trace")

    _outlives_connection = True

    def __init__(self, kind: NativeKind) -> None:
        """Take over the call that the present runner runs. It sees the settings of this moment until its end."""
        runner: Any = getcurrent()
        message = runner.call
        # as Later's own __init__ does: each call pays for a further one
        self._on_over = self._call = self._outcome = self._again = None
        self._claim = True
        self.kind = kind
        self.method: str = message[-2]
        self.msgid: int | None = message[1] if len(message) == 4 else None
        self.cancelled = False
        self.settings: Version = settings.newest
        traced, trace = runner.traced
        self.trace: str | None = trace if traced is message else None
        self._outbox = runner.outbox
        self._limit = runner.limit
        kind.taken += 1

    @property
    def peer(self) -> str:
        """The client's address."""
        peer: str = self._outbox.peer
        return peer

    @property
    def identity(self) -> Identity:
        """What is known of the client."""
        identity: Identity = self._outbox.identity
        return identity

    @property
    def deadline(self) -> float | None:
        """Monotonic seconds, when its time limit passes; None if it has none."""
        return None if self._limit is None else float(self._limit.ends_at)

    def show(self) -> None:
        """Make this the current call of the present context."""
        NATIVE_CALL.set(self)

    def end(self, error: BaseException | None, value: Any) -> None:
        """End the call with its result or its error. Runs where it ran."""
        if not self._end(error, value):
            self.kind.come_late(self)

    # -- in the hub

    def _note_over(self, tell: Any) -> None:
        self.cancelled = True
        self.kind.note_over(self)

    def _note_end(self) -> None:
        if not self.cancelled:
            self.kind.note_back(self)
