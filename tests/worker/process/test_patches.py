"""What a boot costs: nothing is read twice."""

from __future__ import annotations

import subprocess
import sys


def printed(program: str) -> str:
    """What ``program`` prints, in a process of its own: patching and importing are for life."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


def test_gevent_finds_its_plugins_in_one_look() -> None:
    """And later the service looks for itself."""
    program = (
        "from importlib import metadata\n"
        "looks, discover = [], metadata.Distribution.discover\n"
        "metadata.Distribution.discover = lambda **by: looks.append(by) or discover(**by)\n"
        "original = metadata.entry_points\n"
        "from rpccluster.worker.process import patches\n"
        "looks.clear()\n"
        "patches.patch()\n"
        "print(len(looks), metadata.entry_points is original, patches.monkey.is_module_patched('socket'))\n"
    )
    assert printed(program) == "1 True True"
    preload = "import rpccluster.assembly.preload as master\nmaster.preload(has_queues=False)\nlooks.clear()\n"
    assert printed(program.replace("looks.clear()\n", preload)) == "0 True True"  # the master has looked
