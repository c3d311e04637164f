"""Runs features on a loop of a worker, in a patched process: ``loop_program.py epoll|uvloop FEATURE…``.

The loop runs in a native thread, as in a worker. The main greenlet waits for the result, and for nothing longer than
`LIMIT_SECONDS`: a feature that never ends is told as such.
"""

# ruff: noqa: E402
import sys

from rpccluster.worker.process.patches import patch

patch()

import asyncio
import hashlib
import os
import sqlite3
import time

import gevent
import gevent.event

from rpccluster.worker.native import before_patch
from rpccluster.worker.native.primitives import start_new_thread

LIMIT_SECONDS = 30
BLOCK_SECONDS = 0.3


def sleep_in_c():
    """Sleep without a look at gevent's hub, and without the GIL."""
    sqlite3.connect(":memory:").execute("select 1")
    gevent.monkey.get_original("time", "sleep")(BLOCK_SECONDS)


async def to_threads(function, *arguments):
    """Run it in five threads at once; returns whether that took less time than one after the other."""
    began = time.monotonic()
    await asyncio.gather(*(asyncio.to_thread(function, *arguments) for _ in range(5)))
    return time.monotonic() - began < 5 * BLOCK_SECONDS


async def getaddrinfo():
    return [found[4] for found in await asyncio.get_running_loop().getaddrinfo("127.0.0.1", 80, type=1)]


async def getaddrinfo_of_a_name():
    found = await asyncio.get_running_loop().getaddrinfo("localhost", 80, type=1)
    return sorted({address[4][1] for address in found})


async def getnameinfo():
    return (await asyncio.get_running_loop().getnameinfo(("127.0.0.1", 9)))[0] != ""


async def run_in_executor():
    return await asyncio.get_running_loop().run_in_executor(None, sum, [1, 2, 3])


async def an_exception_in_the_executor():
    try:
        await asyncio.get_running_loop().run_in_executor(None, sys.exit, 3)
    except SystemExit as error:
        return error.code


async def to_thread_of_a_patched_sleep():
    return await to_threads(time.sleep, BLOCK_SECONDS)


async def to_thread_of_a_sleep_in_c():
    return await to_threads(sleep_in_c)


async def the_loop_goes_on_beside_threads():
    waiting = asyncio.ensure_future(asyncio.to_thread(sleep_in_c))
    turns = 0
    while not waiting.done():
        await asyncio.sleep(0.01)
        turns += 1
    return turns > 3


async def create_subprocess_exec():
    try:
        await asyncio.create_subprocess_exec("true")
    except NotImplementedError as error:
        return str(error).partition(":")[0]


async def create_subprocess_shell():
    try:
        await asyncio.create_subprocess_shell("true")
    except NotImplementedError as error:
        return str(error).partition(":")[0]


async def add_signal_handler():
    try:
        asyncio.get_running_loop().add_signal_handler(10, print)
    except NotImplementedError as error:
        return str(error).partition(":")[0]


async def wait_for():
    try:
        await asyncio.wait_for(asyncio.sleep(60), 0.05)
    except asyncio.TimeoutError:
        return await asyncio.wait_for(asyncio.sleep(0.01, "slept"), 60)


async def aiohttp():
    """Fifty requests to a server on loopback, by name, and some more at once."""
    import aiohttp
    from aiohttp import web

    async def answer(request):
        return web.json_response([await request.json()])

    app = web.Application()
    app.router.add_post("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "localhost", 0)
    await site.start()
    address = f"http://localhost:{site._server.sockets[0].getsockname()[1]}/"

    async def post(session, number):
        async with session.post(address, json=number) as response:
            return await response.json()

    async with aiohttp.ClientSession() as session:
        one_by_one = [await post(session, number) for number in range(50)]
        at_once = await asyncio.gather(*(post(session, number) for number in range(50)))
    await runner.cleanup()
    return one_by_one == at_once == [[number] for number in range(50)]


async def sqlite_in_threads():
    def ask(number):
        return sqlite3.connect(":memory:").execute("select ? * 2", (number,)).fetchone()[0]

    return await asyncio.gather(*(asyncio.to_thread(ask, number) for number in range(20)))


async def hashlib_in_threads():
    def derive(number):
        return hashlib.pbkdf2_hmac("sha256", b"word", bytes([number]), 20_000)

    return len({*await asyncio.gather(*(asyncio.to_thread(derive, number) for number in range(5)))})


async def a_thousand_at_once():
    loop = asyncio.get_running_loop()
    return sum(await asyncio.gather(*(loop.run_in_executor(None, int, 1) for _ in range(1000))))


async def shutdown_default_executor():
    loop = asyncio.get_running_loop()
    waiting = asyncio.ensure_future(asyncio.to_thread(sleep_in_c))
    await asyncio.sleep(0.05)
    await loop.shutdown_default_executor()
    try:
        await asyncio.to_thread(int)
    except RuntimeError:
        return waiting.done()


def in_a_forked_child(loop):
    """Return what a copy of the loop and of its executor say in a forked child, and that a new loop works there."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        return eval(os.read(reader, 10_000))
    told = [loop.is_running()]
    for use in (lambda: loop.call_soon_threadsafe(print), lambda: loop._native_executor.submit(print)):
        try:
            use()
        except RuntimeError as error:
            told.append(str(error).partition(":")[0])
    loop.close()
    told.append(before_patch.make_loop().run_until_complete(run_in_executor()))
    os.write(writer, repr(told).encode())
    os._exit(0)


def run_on(loop, feature):
    """Run the coroutine function on the loop; return its result, or its error."""
    hub_loop, ended, outcome = gevent.get_hub().loop, gevent.event.Event(), []
    wake = hub_loop.async_()
    wake.start(ended.set)

    async def observed():
        try:
            outcome.append(await feature())
        except BaseException as error:
            outcome.append(error)
        wake.send()

    loop.call_soon_threadsafe(lambda: loop.create_task(observed()))
    return outcome[0] if ended.wait(LIMIT_SECONDS) else "it never ends"


def main():
    """Print a line for each feature: its name, and what it returns."""
    kind, *names = sys.argv[1:]
    if kind == "epoll":
        before_patch.uvloop = None
    loop = before_patch.make_loop()
    start_new_thread(loop.run_forever, ())
    for name in names:
        if name == "in_a_forked_child":
            print(f"{name} {in_a_forked_child(loop)!r}")
        else:
            print(f"{name} {run_on(loop, globals()[name])!r}")
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
