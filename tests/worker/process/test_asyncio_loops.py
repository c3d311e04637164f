"""Several calls of a worker may each be in `asyncio.run`."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import asyncio, sys
import gevent
from rpccluster.worker.process.patches import patch
patch()

async def numbers():
    for number in range(3):
        await asyncio.sleep(0.02)
        yield number

async def main(name):
    loop = asyncio.get_running_loop()
    seen = [number async for number in numbers()]
    await asyncio.gather(asyncio.sleep(0.1), loop.run_in_executor(None, gevent.sleep, 0.05))
    gevent.sleep(0.02)  # waits in the middle of a step
    assert asyncio.get_running_loop() is loop
    return name, seen

greenlets = [gevent.spawn_later(0.01 * name, asyncio.run, main(name)) for name in range(6)]
gevent.sleep(0.03)
assert asyncio._get_running_loop() is None
assert [greenlet.get() for greenlet in greenlets] == [(name, [0, 1, 2]) for name in range(6)]
assert sys.get_asyncgen_hooks() == (None, None)
print("fine")
"""


def test_loops_side_by_side() -> None:
    """Each is the running one while its own greenlet runs; outside of them there is none."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", PROGRAM], capture_output=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == (b"fine\n", b"")
