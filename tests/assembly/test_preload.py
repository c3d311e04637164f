"""What the master imports for all of its children is fit to be."""

from __future__ import annotations

import subprocess
import sys


def printed(program: str) -> str:
    """What ``program`` prints, in a process of its own: patching and importing are for life."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


def test_what_is_preloaded_knows_no_gevent_and_makes_no_lock() -> None:
    """A lock from before gevent has patched would hold up the whole worker, not one greenlet."""
    program = (
        "import rpccluster.assembly.assemble, sys, threading\n"
        "from rpccluster.assembly.preload import preload\n"
        "made = []\n"
        "for name in ('Lock', 'RLock'):\n"
        "    make = getattr(threading, name)\n"
        "    setattr(threading, name, lambda make=make, name=name: made.append(name) or make())\n"
        "preload(has_queues=True)\n"
        "unfit = ('gevent', 'greenlet', 'concurrent.futures.thread', 'ssl')\n"
        "print(made, [name for name in unfit if name in sys.modules], 'rpccluster.queues.sqlite' in sys.modules)\n"
    )
    assert printed(program) == "[] [] True"
    assert printed(program.replace("True", "False")) == "[] [] False"


def test_gevent_finds_what_it_imports() -> None:
    """But no `ssl`, which keeps functions of `socket` that gevent replaces."""
    program = (
        "import sys\n"
        "from rpccluster.assembly.preload import preload\n"
        "preload(has_queues=False)\n"
        "print([name for name in ('_ssl', 'zope.interface', 'ssl') if name in sys.modules])\n"
    )
    expected = ["_ssl", "zope.interface"] if sys.implementation.name == "cpython" else []
    assert printed(program) == str(expected)
