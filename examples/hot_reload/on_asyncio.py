"""The event in a plugin on asyncio: the hook, which runs in a thread of rpccluster's, wakes the task in its loop."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Callable

import task

import rpccluster

settings = task.SETTINGS
wake: Callable[[], object] = lambda: None  # noqa: E731


def settings_changed(old: Mapping[str, Any], new: Mapping[str, Any], changed: frozenset[str]) -> None:
    wake()


async def speak(plugin: rpccluster.Plugin, changed: asyncio.Event) -> None:
    while True:
        task.say("loop", plugin.settings)
        try:
            await asyncio.wait_for(changed.wait(), plugin.settings["every"])
        except asyncio.TimeoutError:
            continue
        changed.clear()


async def run(plugin: rpccluster.Plugin) -> None:
    global wake
    loop, changed = asyncio.get_running_loop(), asyncio.Event()
    wake = lambda: loop.call_soon_threadsafe(changed.set)  # noqa: E731
    speaking = asyncio.ensure_future(speak(plugin, changed))
    await plugin.wait_stopping()
    speaking.cancel()
