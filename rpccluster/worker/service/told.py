"""An error that another process has told, for a call's caller. Runs in the worker; imports nothing."""

from __future__ import annotations

__all__ = ["Told"]


class Told(Exception):
    """The error of a call that ran elsewhere: its caller gets ``text`` as it is, the log the ``traceback``, too."""

    def __init__(self, text: str, traceback: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.traceback = traceback
