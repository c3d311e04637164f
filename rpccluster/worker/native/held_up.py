"""Says where a thread is that holds its loop up: which method it runs, and at which line. Reads frames only.

The thread may go on while its frames are read: then what is said is a moment old. Runs in the thread that watches.
"""

from __future__ import annotations

import os
from types import FrameType
from typing import Any, NamedTuple

import gevent

from rpccluster.log import escaped
from rpccluster.worker.current import Runner

__all__ = ["Place", "Stack", "stack_of"]

_PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
_OURS = (os.path.join(_PACKAGE, ""), os.path.join(os.path.dirname(gevent.__file__), ""))


class Place(NamedTuple):
    """A line of code that runs."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{escaped(self.file)}:{self.line} ({escaped(self.function)})"


class Stack(NamedTuple):
    """Where a thread is: in a ``method``, at its line ``own``, and ``innermost`` at that.

    ``method`` is empty if it runs none. ``own`` is None if only code of this package runs, as when a method has just
    returned.
    """

    method: str
    own: Place | None
    innermost: Place

    def __str__(self) -> str:
        method = f"method {escaped(self.method)}" if self.method else "code of no method"
        if self.own in (None, self.innermost):
            return f"{method} at {self.innermost}"
        return f"{method} at {self.own}, in {self.innermost}"

    @property
    def subject(self) -> str:
        """The method, or the line if there is none: for one log line about each."""
        place = self.own or self.innermost
        return self.method or f"{place.file}:{place.line}"


def stack_of(frame: FrameType) -> Stack:
    """Return where the thread is whose present frame is ``frame``."""
    places: list[Place] = []
    method = ""
    here: FrameType | None = frame
    while here is not None:
        code = here.f_code
        places.append(Place(code.co_filename, here.f_lineno or 0, code.co_name))
        if not method and code.co_filename.startswith(_OURS):
            method = _method_in(here.f_locals)
        here = here.f_back
    own = next((place for place in reversed(places) if not place.file.startswith(_OURS)), None)
    return Stack(method, own, places[0])


def _method_in(variables: Any) -> str:
    """Return the method of the call that a frame of ours runs; empty if it runs none."""
    runner = variables.get("runner")
    if isinstance(runner, Runner):
        call = runner.call
        name = call[-2] if type(call) is list and len(call) > 2 else ""
    else:
        name = getattr(variables.get("self"), "method", "")
    return name if type(name) is str else ""
