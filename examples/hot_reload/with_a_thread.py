"""The event in a plugin with a thread: the hook, which runs in a thread of rpccluster's, wakes the task."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import task

import rpccluster

settings = task.SETTINGS
is_changed = threading.Event()


def settings_changed(old: Mapping[str, Any], new: Mapping[str, Any], changed: frozenset[str]) -> None:
    is_changed.set()


def speak(plugin: rpccluster.Plugin) -> None:
    while True:
        task.say("thread", plugin.settings)
        is_changed.wait(plugin.settings["every"])
        is_changed.clear()


def run(plugin: rpccluster.Plugin) -> None:
    threading.Thread(target=speak, args=(plugin,), daemon=True).start()
    plugin.stopping.wait()
