"""The master's parts that belong to plugins, as the shared test handles them."""

from __future__ import annotations

import os
from typing import Any

from rpccluster.config.sections.plugin import PluginOptions
from rpccluster.master.kinds.plugins.output import PluginOutput
from rpccluster.master.kinds.plugins.sources import Notices, OutputPipe

from .part import Part

__all__ = ["PLUGIN_PARTS"]


class AnOutputPipe(Part):
    """With a line that has not ended."""

    pipe: OutputPipe | None = None

    def start(self) -> None:
        self.pipe = OutputPipe()
        os.write(self.pipe.far_end, b"one\ntwo")
        self.pipe.read()

    def stop(self) -> None:
        if self.pipe is not None:
            self.pipe.close()

    def is_stopped(self) -> bool:
        return self.pipe is None or self.pipe.is_closed


class Noticing(Part):
    """With nobody who speaks."""

    notices: Notices | None = None

    def start(self) -> None:
        self.notices = Notices({0})
        self.notices.read()

    def stop(self) -> None:
        if self.notices is not None:
            self.notices.close()


class AnOutput(Part):
    """With a file of its own, which is full."""

    def make(self) -> None:
        shared: Any = None
        self.output = PluginOutput("a", lambda: shared)

    def start(self) -> None:
        path = str(self.folder / "a.log")
        self.output.lead_to(PluginOptions(run="a:b", log_file=path, log_max_size=10))
        self.output.write(1, ["one"])
        self.output.write(1, ["two"])

    def stop(self) -> None:
        self.output.close()

    def is_stopped(self) -> bool:
        return self.output.files is None


PLUGIN_PARTS: list[type[Part]] = [AnOutputPipe, Noticing, AnOutput]
