"""What a verb of a queue asks of its face: to make a call, or to pause. A verb is a generator of such steps.

So each verb is written once, and two faces drive it, one with threads, one with asyncio: they perform a step, and send
what it returns, or throw what it raises, into the generator.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, NamedTuple, TypeVar, Union

__all__ = ["Call", "Pause", "Step", "Steps"]

T = TypeVar("T")


class Call(NamedTuple):
    """A call, which may be made again if its connection ends. ``timeout`` is in seconds, None means no limit."""

    method: str
    params: tuple[Any, ...]
    timeout: float | None


class Pause(NamedTuple):
    """Nothing for some time."""

    seconds: float


Step = Union[Call, Pause]
#: A verb that returns a T.
Steps = Generator[Step, Any, T]
