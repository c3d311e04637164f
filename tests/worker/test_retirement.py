"""How a worker retires, on a made-up loop: when calls are given up, and when it has finished."""

from __future__ import annotations

from typing import Any, Callable

from rpccluster.ipc.messages import Retire
from rpccluster.worker.retirement import LOOK_SECONDS, Retirement


class Timer:
    """A timer that fires when the test says so."""

    def __init__(self, after: float, repeat: float) -> None:
        self.after = after
        self.repeat = repeat
        self.fire: Callable[[], None] = lambda: None

    def start(self, do: Callable[..., None], *arguments: Any) -> None:
        self.fire = lambda: do(*arguments)


class Made:
    """A retirement; the rest of its worker is what the test says: an engine and a channel that are quiet or not."""

    def __init__(self) -> None:
        self.timers: list[Timer] = []
        self.connections: set[int] = set()
        self.is_quiet = True
        self.given_up: list[str] = []
        self.finished = 0
        self.retirement = Retirement(self, self, self.connections, self, self._finish)  # type: ignore[arg-type]

    def timer(self, after: float, repeat: float) -> Timer:
        self.timers.append(Timer(after, repeat))
        return self.timers[-1]

    def give_up(self, reason: str) -> None:
        self.given_up.append(reason)

    def _finish(self) -> None:
        self.finished += 1

    def begin(self, seconds: float, *, whole_cluster: bool = False, stays: bool = False) -> tuple[Timer, Timer]:
        """Returns the timer that looks, and the deadline."""
        self.retirement.begin(Retire(seconds, whole_cluster, stays))
        look, deadline = self.timers[-2:]
        assert (look.repeat, deadline.after) == (LOOK_SECONDS, seconds)
        return look, deadline


def test_it_has_finished_when_nothing_is_left() -> None:
    """No connection, no call, nothing to say to the master."""
    made = Made()
    made.connections.add(1)
    look, _ = made.begin(10)
    look.fire()
    made.connections.clear()
    made.is_quiet = False
    look.fire()
    assert made.finished == 0
    made.is_quiet = True
    look.fire()
    assert made.finished == 1


def test_it_stays_while_the_master_wants_it() -> None:
    """Since connections may still come; a second order says that none will."""
    made = Made()
    look, _ = made.begin(10, stays=True)
    look.fire()
    assert made.finished == 0
    made.begin(10)
    look.fire()
    assert made.finished == 1


def test_calls_are_given_up_at_the_deadline() -> None:
    """Once; connections that are left are served on, and the calls of those times may take as long once more."""
    made = Made()
    made.connections.add(1)
    look, deadline = made.begin(10)
    deadline.fire()
    assert (len(made.given_up), deadline.repeat) == (1, 0.0)
    look.fire()
    assert len(made.timers) == 2
    made.connections.clear()
    made.is_quiet = False
    look.fire()
    look.fire()
    *_, again = made.timers
    assert (len(made.timers), again.after) == (3, 10)
    again.fire()
    assert len(made.given_up) == 2


def test_when_all_ends_calls_are_given_up_again_and_again() -> None:
    """Those that have waited for a greenlet begin after the deadline."""
    made = Made()
    _, deadline = made.begin(10, whole_cluster=True)
    assert deadline.repeat > 0
    deadline.fire()
    deadline.fire()
    assert len(made.given_up) == 2


def test_a_stop_overtakes_a_recycling() -> None:
    """The earlier end counts, and the first beginning."""
    made = Made()
    made.begin(100)
    began_at, ends_at = made.retirement.began_at, made.retirement.ends_at
    made.begin(1, whole_cluster=True)
    assert made.retirement.began_at == began_at
    assert made.retirement.ends_at < ends_at
