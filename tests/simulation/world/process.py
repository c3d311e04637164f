"""What a made-up process is: it takes steps, has children, is signalled, and ends as the kernel would end it."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Protocol

from rpccluster.system import Exit

if TYPE_CHECKING:
    from .world import World

__all__ = ["NEVER", "Actor", "Died", "Fault", "Process"]

NEVER = float("inf")


class Fault(BaseException):
    """What must not happen in any world; the text says what did. No guard of a master's may catch it."""


class Died(Exception):
    """A process has ended in the middle of a step."""


class Actor(Protocol):
    """Whoever takes steps: a master, a worker, a client. ``resumes_at``: it sleeps, or is not scheduled, until then."""

    name: str
    resumes_at: float

    @property
    def wake_at(self) -> float: ...

    def step(self) -> None: ...


class Process:
    """A made-up process, of which a master or a worker is made."""

    noun = "process"
    is_checked = False  # after each of its steps the invariants are looked at
    has_listeners = False  # whose callers may wait to be accepted

    def __init__(self, world: World, pid: int, parent: Process | None) -> None:
        self.world = world
        self.pid = pid
        self.parent = parent
        self.is_alive = True
        self.resumes_at = world.now
        self.children: dict[int, Process] = {}  # by pid
        self.zombies: list[Exit] = []  # children that have ended and were not reaped

    @property
    def name(self) -> str:
        return f"{self.noun} {self.pid}"

    @property
    def wake_at(self) -> float:
        return NEVER

    def step(self) -> None:
        raise NotImplementedError

    def take_signal(self, signum: int) -> None:
        """Get a signal that it can handle."""

    def release(self) -> None:
        """Close everything that the process has open."""

    def end(self, *, code: int | None = None, signum: int | None = None) -> None:
        """End: the kernel closes what it has open, and kills its children, whose parent tells them to die with it."""
        if not self.is_alive:
            return
        self.is_alive = False
        exit_ = Exit(self.pid, code, signum)
        self.world.tell(self.name, f"ends: {exit_}")
        self.world.count("end", f"{self.noun}, {'code ' + str(code) if signum is None else 'signal ' + str(signum)}")
        if code != 0:
            self.world.crashed_at = self.world.now
        self.release()
        self.world.remove(self)
        for child in list(self.children.values()):
            child.lose_parent()
        if self.parent is not None and self.parent.is_alive:
            self.parent.zombies.append(exit_)
            self.parent.take_signal(signal.SIGCHLD)

    def beat(self) -> None:
        """Write the heartbeat that it would have written by now."""

    def lose_parent(self) -> None:
        self.world.after(self.world.delay(), self.end, signum=signal.SIGKILL)
