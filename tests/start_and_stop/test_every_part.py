"""Every part that starts and stops keeps the same promises: it may be stopped before its start, twice, during it,
and when that fails; and nothing of it is left then: no descriptor, thread, process, socket file or pid.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from descriptors import descriptors_left

from .client_parts import CLIENT_PARTS
from .cluster_parts import CLUSTER_PARTS
from .master_parts import MASTER_PARTS
from .part import SECONDS, Part, nothing_left
from .plugin_parts import PLUGIN_PARTS
from .task_parts import TASK_PARTS
from .worker_parts import WORKER_PARTS

PARTS: list[type[Part]] = [*MASTER_PARTS, *PLUGIN_PARTS, *TASK_PARTS, *WORKER_PARTS, *CLIENT_PARTS, *CLUSTER_PARTS]
MOST_DESCRIPTORS = 60  # no part needs as many to start
SEEDS = range(5)

every_part = pytest.mark.parametrize("kind", PARTS, ids=lambda kind: kind.__name__)
every_quick_part = pytest.mark.parametrize(
    "kind", [kind for kind in PARTS if not kind.is_slow], ids=lambda kind: kind.__name__
)


@contextlib.contextmanager
def looked_at(kind: type[Part], folder: Path) -> Iterator[Part]:
    """A part of that kind, of which nothing is left at the end."""
    part = kind(folder)
    part.prepare()
    try:
        with nothing_left(folder):
            yield part
            assert part.is_stopped()
    finally:
        part.clean()


@contextlib.contextmanager
def bystanders() -> Iterator[None]:
    """Descriptors of somebody else, who has got the numbers that are free: they are not closed."""
    opened = [os.open("/dev/null", os.O_RDONLY) for _ in range(30)]
    try:
        yield
        for descriptor in opened:
            os.fstat(descriptor)  # an OSError if it was closed
    finally:
        for descriptor in opened:
            with contextlib.suppress(OSError):
                os.close(descriptor)


@every_part
def test_it_is_stopped_before_it_starts(kind: type[Part], tmp_path: Path) -> None:
    """Made or not, once or twice."""
    with looked_at(kind, tmp_path) as part:
        part.make()
        part.stop()
        with bystanders():
            part.stop()


@every_part
def test_it_is_stopped_twice(kind: type[Part], tmp_path: Path) -> None:
    """The second stop changes nothing, and closes nothing of anybody else's."""
    with looked_at(kind, tmp_path) as part:
        part.make()
        part.start()
        part.stop()
        assert part.is_stopped()
        with bystanders():
            part.stop()


@pytest.mark.parametrize("kind", [kind for kind in PARTS if kind.takes_time], ids=lambda kind: kind.__name__)
def test_it_is_stopped_while_it_starts(kind: type[Part], tmp_path: Path) -> None:
    """What has begun comes to its end, and the part does not start behind the stop's back."""
    with looked_at(kind, tmp_path) as part:
        part.make()
        part.begin()
        part.stop()
        part.end_begun()
        assert part.is_stopped()
        with bystanders():
            part.stop()


@every_quick_part
def test_it_is_stopped_when_there_is_no_descriptor_for_it(kind: type[Part], tmp_path: Path) -> None:
    """Its start fails at each place at which it may; then the part may be stopped, and nothing of it is left."""
    for number in range(MOST_DESCRIPTORS):
        with looked_at(kind, tmp_path) as part:
            has_started = True
            try:
                with descriptors_left(number):
                    part.make()
                    part.start()
            except Exception:
                has_started = False
            part.stop()
            with bystanders():
                part.stop()
        if has_started:
            return
    raise AssertionError(f"it does not start with {MOST_DESCRIPTORS} descriptors")


def _failures() -> Iterator[tuple[type[Part], str]]:
    for kind in PARTS:
        for name in kind(Path()).failures():
            yield kind, name


@pytest.mark.parametrize(("kind", "failure"), [*_failures()], ids=lambda value: getattr(value, "__name__", value))
def test_it_is_stopped_when_its_start_fails(kind: type[Part], failure: str, tmp_path: Path) -> None:
    """For each reason that its adapter names; it may start when the reason is gone, or not, and is stopped again."""
    with looked_at(kind, tmp_path) as part:
        with part.failures()[failure]():
            has_failed = True
            with contextlib.suppress(Exception):
                part.make()
                part.start()
                has_failed = False
            assert has_failed or part.takes_time  # then it fails later
            part.stop()
        with bystanders():
            part.stop()


@pytest.mark.parametrize("seed", SEEDS)
@every_quick_part
def test_it_is_started_and_stopped_in_any_order(kind: type[Part], seed: int, tmp_path: Path) -> None:
    """A start after a stop succeeds or fails; whatever comes, nothing is left after the last stop."""
    choice = random.Random(seed)
    with looked_at(kind, tmp_path) as part:
        part.make()
        is_running = False
        for _ in range(8):
            step = choice.choice([part.stop, part.stop] if is_running else [part.start, part.begin, part.stop])
            if step == part.stop:
                part.stop()
                is_running = False
            else:
                with contextlib.suppress(Exception):
                    step()
                    is_running = True
        part.stop()
        part.end_begun()
        part.stop()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", [kind for kind in PARTS if kind.is_for_threads], ids=lambda kind: kind.__name__)
def test_several_threads_start_and_stop_it(kind: type[Part], seed: int, tmp_path: Path) -> None:
    """At once: each start succeeds or fails, each stop ends, and nothing is left after the last one."""
    faults: list[BaseException] = []

    def start() -> None:
        with contextlib.suppress(Exception):
            part.start()

    def stop() -> None:
        try:
            part.stop()
        except BaseException as fault:
            faults.append(fault)

    with looked_at(kind, tmp_path) as part:
        part.make()
        threads = [threading.Thread(target=act) for act in (start, start, start, start, stop, stop, stop)]
        random.Random(seed).shuffle(threads)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS)
        assert not any(thread.is_alive() for thread in threads)
        part.stop()
        assert faults == []
