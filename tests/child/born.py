"""Children of a made-up kind, forked from the tests: what one of them tells comes back as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Callable

from rpccluster.child.assignment import Assignment, KindPart
from rpccluster.config import Options
from rpccluster.ipc.channel import Channel, channel_pair
from rpccluster.ipc.scoreboard import Scoreboard
from rpccluster.log import LogFiles


@dataclass(frozen=True)
class MadeUpPart(KindPart):
    """Keeps what it is told to."""

    kept: list[int] = field(default_factory=list)

    def descriptors(self) -> list[int]:
        return self.kept


@contextmanager
def made_up(options: Options | None = None, **changes: Any) -> Iterator[tuple[Assignment[MadeUpPart], Channel]]:
    """What a child is born with, and the master's end of its channel."""
    ours, theirs = channel_pair()
    scoreboard = Scoreboard(2)
    assignment = Assignment(
        kind="made-up",
        name="thing 3",
        slot=3,
        generation=1,
        options=options or Options(service="a:b", proc_name="name"),
        cpus=None,
        row_number=1,
        scoreboard=scoreboard,
        serial=7,
        channel=theirs,
        master_pid=os.getpid(),
        logs=LogFiles("", ""),
        part=MadeUpPart(),
    )
    try:
        yield replace(assignment, **changes), ours
    finally:
        ours.close()
        theirs.close()


def told_by_a_child(be: Callable[[Callable[[Any], None], int], object]) -> tuple[Any, int]:
    """What a forked child that calls ``be`` tells, and its exit code. ``be`` gets what tells it, and the descriptor."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            os.close(read_end)
            be(lambda told: os.write(write_end, json.dumps(told).encode()) and None, write_end)
            code = 0
        finally:
            os._exit(code)
    os.close(write_end)
    with open(read_end, encoding="utf-8") as answer:
        told = answer.read()
    status = os.waitpid(pid, 0)[1]
    return json.loads(told) if told else None, os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
