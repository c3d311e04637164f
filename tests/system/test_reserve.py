"""Descriptors kept back: free at once while they are lent, whatever gevent makes of closing."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
from rpccluster.system import Reserve
from gevent import monkey
monkey.patch_all()
import gevent, os, resource
gevent.sleep(0)
reserve = Reserve(2)
before = len(os.listdir("/proc/self/fd"))

def look():
    with reserve.lent():
        print(before - len(os.listdir("/proc/self/fd")))

gevent.get_hub().loop.run_callback(look)  # where a worker gives connections away: nothing else runs meanwhile
gevent.sleep(0.01)
"""


def test_what_is_lent_is_free_at_once_in_a_patched_process() -> None:
    """gevent's own close(2) would take a turn of the loop."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.stdout == "2\n", done.stderr
