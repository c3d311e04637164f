"""The refusal of a call that its caller may not make. Runs in the worker."""

from __future__ import annotations

__all__ = ["Denied"]


class Denied(Exception):
    """Raised in place of a call, before it begins; its caller is answered ``text``. Who raises it counts and logs."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text
