"""A made-up loop of gevent's: it calls what is due when it is told to."""

from __future__ import annotations

from typing import Any

__all__ = ["Loop"]


class Watcher:
    def start(self, *given: Any) -> None:
        self.given = given

    def stop(self) -> None: ...

    def close(self) -> None: ...


class Loop:
    """Keeps what is to be called in the next turn."""

    def __init__(self) -> None:
        self.due: list[Any] = []
        self.watchers: list[Watcher] = []

    def io(self, descriptor: int, events: int) -> Watcher:
        self.watchers.append(Watcher())
        return self.watchers[-1]

    def timer(self, *seconds: float) -> Watcher:
        self.watchers.append(Watcher())
        return self.watchers[-1]

    def run_callback(self, do: Any, *given: Any) -> None:
        self.due.append((do, given))

    def turn(self) -> None:
        due, self.due = self.due, []
        for do, given in due:
            do(*given)
