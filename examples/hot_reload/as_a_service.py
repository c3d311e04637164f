"""The event in a service: the hook wakes the task, which goes on with the new values."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import task

import rpccluster


class Speaker(rpccluster.Service):
    settings = task.SETTINGS

    def worker_started(self, worker: object) -> None:
        self.changed = threading.Event()
        threading.Thread(target=self._speak, daemon=True).start()  # a greenlet, in a worker

    def settings_check(self, new: Mapping[str, Any], changed: frozenset[str]) -> None:
        task.check(new)

    def settings_changed(self, old: Mapping[str, Any], new: Mapping[str, Any], changed: frozenset[str]) -> None:
        self.changed.set()

    def text(self) -> str:
        """What the task says at present."""
        return str(rpccluster.settings["text"])

    def _speak(self) -> None:
        while True:
            task.say("service", rpccluster.settings)
            self.changed.wait(rpccluster.settings["every"])
            self.changed.clear()
