"""Descriptors kept back: free at once while they are lent, whatever gevent makes of closing."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import os, resource
from rpccluster.ipc.reserve import Reserve
import gevent.monkey
gevent.monkey.patch_all()
reserve = Reserve(2)
used = [os.dup(0)]
resource.setrlimit(resource.RLIMIT_NOFILE, (used[-1] + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
for _ in range(3):
    with reserve.lent():
        lent = [os.dup(0), os.dup(0)]
        for descriptor in lent:
            gevent.monkey.get_original("os", "close")(descriptor)
print("fine")
"""


def test_what_is_lent_is_free_at_once_in_a_patched_process() -> None:
    """gevent's own close(2) would take a turn of the loop."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.stdout == "fine\n", done.stderr
