"""Connects to the first of a name's addresses that answers, on asyncio.

The counterpart of `rpccluster.client.sync.dialing`. It uses only what every loop has, uvloop included.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable
from typing import Any, TypeVar

from rpccluster.address import Address, UnixAddress
from rpccluster.client.threads.lookup import Target, numeric, ordered
from rpccluster.client.threads.sockets import NEXT_SECONDS, adjust, all_failed
from rpccluster.errors import ConnectFailed
from rpccluster.protocol.challenge import MOST_BYTES, Key, proving

__all__ = ["dial", "prove", "within"]

T = TypeVar("T")


async def within(awaitable: Awaitable[T], seconds: float | None) -> T:
    """Await ``awaitable`` for at most ``seconds``. Raises `asyncio.TimeoutError`.

    Before Python 3.12 asyncio.wait_for forgets a cancellation that comes in the same turn of the loop as the result.
    """
    task = asyncio.ensure_future(awaitable)
    try:
        await asyncio.wait({task}, timeout=seconds)
    except asyncio.CancelledError:
        task.cancel()
        raise
    if not task.done():
        task.cancel()
        await asyncio.wait({task})
        if task.cancelled():
            raise asyncio.TimeoutError
    return task.result()


async def dial(host: str, port: int) -> socket.socket:
    """Return a connected, non-blocking socket. Raises OSError or UnicodeError; a cancellation leaves nothing behind."""
    loop = asyncio.get_running_loop()
    targets = numeric(host, port)
    if targets is None:
        targets = ordered(await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    running: set[asyncio.Task[socket.socket]] = set()
    errors: list[OSError] = []
    winner = None
    try:
        while winner is None:
            if targets:
                running.add(loop.create_task(_connect(loop, targets.pop(0))))
            elif not running:
                raise all_failed(errors)
            done, _ = await asyncio.wait(
                running, timeout=NEXT_SECONDS if targets else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                error = task.exception()
                if error is None:
                    winner = winner or task
                else:
                    running.discard(task)
                    errors.append(_as_os_error(error))
        return winner.result()
    finally:
        for task in running - {winner}:
            task.cancel()
            task.add_done_callback(_close)


async def prove(address: Address, key: Key) -> socket.socket:
    """Return a socket that is connected to a server which has proved, as we have, that it knows ``key``.

    Raises OSError, UnicodeError, or `ConnectFailed`; a cancellation leaves nothing behind.
    """
    loop = asyncio.get_running_loop()
    sock = await (
        _dial_path(loop, address.path) if isinstance(address, UnixAddress) else dial(address.host, address.port)
    )
    try:
        exchange = proving(key)
        output = next(exchange)
        while True:
            try:
                if output:
                    await loop.sock_sendall(sock, output)
                data = await loop.sock_recv(sock, MOST_BYTES)
            except OSError as error:
                raise ConnectFailed(f"the connection ended in the middle of the challenge: {error}") from None
            try:
                output = exchange.send(data)
            except StopIteration:
                return sock
    except BaseException:
        sock.close()
        raise


async def _dial_path(loop: Any, path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.setblocking(False)
        await loop.sock_connect(sock, path)
    except BaseException:
        sock.close()
        raise
    return sock


async def _connect(loop: Any, target: Target) -> socket.socket:
    family, name = target
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await loop.sock_connect(sock, name)
        adjust(sock)
    except BaseException:
        sock.close()
        raise
    return sock


def _as_os_error(error: BaseException) -> OSError:
    return error if isinstance(error, OSError) else OSError(f"{type(error).__name__}: {error}")


def _close(task: asyncio.Task[socket.socket]) -> None:
    """Close the socket of an attempt that did not win, which may have connected all the same."""
    if not task.cancelled() and task.exception() is None:
        task.result().close()
