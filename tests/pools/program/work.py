"""What the tasks of the tests do. Runs in task processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

from rpccluster.tasks.current import task


def echo(*args: Any, **kwargs: Any) -> Any:
    """Return the arguments."""
    return (args, kwargs) if kwargs else args


def pid() -> int:
    """Return the process."""
    return os.getpid()


def note(path: str, text: str = "x") -> None:
    """Leave a mark that this has run."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, text.encode() + b"\n")
    os.close(descriptor)


def note_and_sleep(path: str, text: str, seconds: float) -> str:
    """Leave a mark, and take a while."""
    note(path, text)
    time.sleep(seconds)
    return text


def wait_for(path: str) -> str:
    """Wait until ``path`` is there."""
    while not os.path.exists(path):
        time.sleep(0.002)
    return path


def sleep(seconds: float = 3600) -> float:
    """Sleep in C."""
    time.sleep(seconds)
    return seconds


def spin() -> None:
    """Compute in Python, for ever."""
    while True:
        pass


def hold_the_gil() -> int:
    """Compute in C, and hold the interpreter's lock."""
    return 3**30_000_000


def ignore_term() -> None:
    """Take no notice of TERM."""
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    time.sleep(3600)


def fork_children() -> None:
    """Have children, one of them in a session of its own."""
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"], start_new_session=True)
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    time.sleep(3600)


def fail(text: str = "no") -> None:
    """Raise."""
    raise ValueError(text)


class Unpicklable(Exception):
    """Cannot be pickled, nor shown."""

    def __reduce__(self) -> Any:
        raise RuntimeError("not me")

    def __str__(self) -> str:
        raise RuntimeError("not me")


def fail_unpicklably() -> None:
    """Raise what cannot travel."""
    raise Unpicklable


def fail_by_timeout() -> None:
    """Raise the builtin error."""
    raise TimeoutError("my own")


def unpicklable() -> Any:
    """Return what cannot travel."""
    return threading.Lock()


def leave(status: int) -> None:
    """End the process."""
    os._exit(status)


def sys_exit() -> None:
    """Raise SystemExit."""
    sys.exit(3)


def kill_itself() -> None:
    """End as the kernel's killer does it."""
    os.kill(os.getpid(), signal.SIGKILL)


def close_all() -> str:
    """Close every descriptor."""
    os.closerange(3, 4096)
    return "closed"


def fail_until(path: str, attempts: int) -> int:
    """Fail until this is the attempt ``attempts``."""
    note(path, str(task().attempt))
    if task().attempt < attempts:
        raise ValueError(f"attempt {task().attempt}")
    return task().attempt


def tell_progress(path: str) -> int:
    """Tell how far this is."""
    task().progress(1, 2, "half")
    wait_for(path)
    return task().id


def clean_up(path: str, goes_on: bool) -> str:
    """Hear the soft limit."""
    from rpccluster import SoftTimeLimit

    try:
        time.sleep(3600)
    except SoftTimeLimit:
        note(path, "cleaned")
    if goes_on:
        time.sleep(3600)
    return "cleaned up"


def take_memory(megabytes: int) -> int:
    """Take memory, piece by piece, and hold it."""
    taken = []
    for _ in range(megabytes):
        taken.append(bytearray(os.urandom(1024)) * 1024)
    time.sleep(1)
    return len(taken)


class Job:
    """A class target."""

    def runnable(self, value: int) -> int:
        """Fail for what is negative."""
        if value < 0:
            raise ValueError(value)
        return value * 2

    def callback(self, result: int) -> None:
        """Hear of the result."""
        heard.append((os.getpid(), "ok", result))

    def error_callback(self, error: Exception) -> None:
        """Hear of the failure."""
        heard.append((os.getpid(), "error", str(error)))


heard: list[tuple[int, str, object]] = []
