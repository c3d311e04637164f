"""A service that says what it was written with, for tests of replaced code."""

from __future__ import annotations

__all__ = ["ANSWERS"]

ANSWERS = """
import os

class Answers:
    def answer(self):
        return {answer!r}

    def pid(self):
        return os.getpid()
"""
