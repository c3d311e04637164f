"""The replacement: a process has the configuration that it was started with, and a successor takes its place."""

from __future__ import annotations

from typing import Any

import task

import rpccluster


def run(config: dict[str, Any], plugin: rpccluster.Plugin) -> None:
    task.say("replaced", config)
    plugin.ready()  # only now is the process before told to stop
    while not plugin.stopping.wait(config["every"]):
        task.say("replaced", config)
