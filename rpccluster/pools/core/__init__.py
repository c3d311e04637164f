"""The dispatch core of a pool: which task goes to which process, what is repeated, and how each task ends. Pure.

Its outside: `Core`, the things that it is told of (`Task`, `Process`, `Result`), and its actions.
"""

from __future__ import annotations

from rpccluster.pools.core.actions import Action, Ended, Kill, Run, TakeBack
from rpccluster.pools.core.dispatch import Core, Result
from rpccluster.pools.core.process import Process
from rpccluster.pools.core.task import Task

__all__ = ["Action", "Core", "Ended", "Kill", "Process", "Result", "Run", "TakeBack", "Task"]
