"""The ``multiprocess`` module of joddiy/multiprocess, by its names, over `rpccluster.TaskPool`.

A program written for it runs with its import changed. A task's time limit holds, whatever the task does; callbacks run
in the process that pushes, and what they raise is logged: `MultiProcess.stop` returns all the same.
"""

from __future__ import annotations

import os
import sys
from abc import ABCMeta, abstractmethod
from typing import Any

import rpccluster
from rpccluster.errors import TaskFailure

__all__ = ["InfoTask", "Model", "MultiProcess"]


class InfoTask:
    """One task: the dotted name of its class, its time limit in seconds (None for none), and its arguments."""

    def __init__(self, task_module: Any, timeout: float | None, *args: Any) -> None:
        self.from_pid = os.getpid()
        self.task_module = task_module
        self.timeout = timeout
        self.args = args


class Model(metaclass=ABCMeta):
    """The class of a task. A new instance runs it; another one, in the process that pushed, hears how it went."""

    @abstractmethod
    def runnable(self, *args: Any) -> Any:
        """Do the work, in a process of the pool. What it returns must be picklable."""

    @abstractmethod
    def callback(self, result: Any) -> object:
        """Hear of the result."""

    @abstractmethod
    def error_callback(self, error: TaskFailure) -> object:
        """Hear of the failure."""


class MultiProcess:
    """A pool of ``pool_num`` processes that run tasks of any class."""

    def __init__(self, pool_num: int = 10) -> None:
        self.pool_num = pool_num
        self._pool: rpccluster.TaskPool | None = None

    def start(self) -> None:
        """Start the processes."""
        self._pool = rpccluster.TaskPool(self.pool_num, ["*"])  # loaded here: the processes of tasks need none

    def push(self, task: InfoTask) -> None:
        """Have a task run; wait while 1000 others wait already. A task without a class does nothing."""
        if self._pool is None:
            raise RuntimeError("the processes are not started: call start() first")
        if task.task_module is False:
            return
        module, _, name = str(task.task_module).rpartition(".")
        self._pool.submit(f"{_importable(module)}:{name}", *task.args, timeout=task.timeout or 0)

    def stop(self) -> None:
        """Wait until all tasks have ended and their callbacks have run, and end the processes."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None


def _importable(module: str) -> str:
    """Return the name by which another process can import ``module``: the program itself is not ``__main__`` there."""
    if module != "__main__":
        return module
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is not None:
        return str(spec.name)
    return os.path.splitext(os.path.basename(getattr(sys.modules["__main__"], "__file__", "") or module))[0]
