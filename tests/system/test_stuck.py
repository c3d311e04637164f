"""Where a process is that cannot be asked."""

from __future__ import annotations

import os
import subprocess
import sys

from rpccluster.system.processes.stuck import where_stuck
from rpccluster.testing import wait_until


def test_the_kernel_tells_where_a_process_is() -> None:
    """Asleep or busy; its system call where this process may see it."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"]) as process:
        wait_until(lambda: where_stuck(process.pid).startswith("state S (sleeping)"))
        process.kill()
    assert where_stuck(os.getpid()).startswith("state R (running)")


def test_nothing_is_known_of_a_process_that_has_gone() -> None:
    """It is no error."""
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert where_stuck(process.pid) == "state unknown"
