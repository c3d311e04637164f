"""Pools of a program that has been forked: the copy lets go of them, so that they end with the program all the same.

Runs in the program, and in the copy right after the fork.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol

__all__ = ["let_go_after_fork"]


class _Holder(Protocol):
    def _after_fork(self) -> None:
        """Let go of everything."""


_holders: weakref.WeakSet[_Holder] = weakref.WeakSet()


def let_go_after_fork(holder: _Holder) -> None:
    """Have ``holder`` let go of everything in each forked copy of this process."""
    _holders.add(holder)


def _after_fork() -> None:
    for holder in list(_holders):
        holder._after_fork()


os.register_at_fork(after_in_child=_after_fork)
