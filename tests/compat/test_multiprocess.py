"""A program written for joddiy/multiprocess runs with its import changed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rpccluster.compat.multiprocess import InfoTask, Model, MultiProcess

CHECKOUT = Path(__file__).resolve().parents[2]

#: Tasks of random length, up to twice their limit; the arguments as the seed's own program gives them.
PROGRAM = """
import os
import random
import time

from rpccluster.compat.multiprocess import InfoTask, Model, MultiProcess


class Demo(Model):
    def runnable(self, *args):
        time.sleep(random.uniform(0, 2 * {limit}))
        return args[0], args[1]

    def callback(self, result):
        print("ok", os.getpid(), result[0]["test"], result[1]["error"], flush=True)
        if {raises}:
            raise RuntimeError("a callback that raises")

    def error_callback(self, error):
        print("error", os.getpid(), error, flush=True)
        if {raises}:
            raise SystemExit("a callback that raises")


class Ending(Demo):
    def runnable(self, *args):
        os._exit(3)


if __name__ == "__main__":
    mp = MultiProcess(5)
    mp.start()
    print("program", os.getpid(), flush=True)
    for i in range(10):
        mp.push(InfoTask({name!r}, {limit}, {{"test": i}}, {{"error": i}}))
    mp.stop()
    print("stopped", os.getpid(), flush=True)
"""

LIMIT = 1.0 if os.environ.get("RPCCLUSTER_FULL_SCALE") else 0.3


def run(
    folder: Path, name: str = "example.Demo", raises: bool = False, limit: float = LIMIT
) -> tuple[list[list[str]], str]:
    """Run the program. Returns the words of its lines, and its stderr."""
    (folder / "example.py").write_text(PROGRAM.format(limit=limit, raises=raises, name=name))
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    shown = subprocess.run(
        [sys.executable, "example.py"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return [line.split(maxsplit=2) for line in shown.stdout.splitlines()], shown.stderr


@pytest.mark.parametrize("raises", [False, True])
def test_the_seeds_program(tmp_path: Path, raises: bool) -> None:
    """Five processes, ten tasks: ten outcomes, told in the process that pushed; then it ends by itself."""
    lines, errors = run(tmp_path, raises=raises)
    assert lines[0][0] == "program"
    assert lines[-1][0] == "stopped"
    outcomes = lines[1:-1]
    assert len(outcomes) == 10
    assert {line[1] for line in lines} == {lines[0][1]}
    numbers = [line[2].split() for line in outcomes if line[0] == "ok"]
    assert all(first == second for first, second in numbers)
    assert len({first for first, _ in numbers}) == len(numbers)
    assert all("timed_out" in line[2] for line in outcomes if line[0] == "error")
    assert errors.count("a callback that raises") >= 10 if raises else errors == ""


def test_a_class_of_the_program_itself(tmp_path: Path) -> None:
    """Is found though the program is ``__main__``; a task that ends its process is told."""
    lines, _ = run(tmp_path, "__main__.Ending", limit=60)
    assert [line[0] for line in lines] == ["program", *["error"] * 10, "stopped"]
    assert all("process_lost" in line[2] for line in lines[1:-1])


def test_the_names_of_a_task() -> None:
    """As the seed's: what it was made of, and where."""
    task = InfoTask("a.b.C", 1, 2, 3)
    assert (task.task_module, task.timeout, task.args, task.from_pid) == ("a.b.C", 1, (2, 3), os.getpid())


def test_a_model_has_three_methods() -> None:
    """One that lacks any cannot be made."""
    with pytest.raises(TypeError, match="abstract"):
        Model()  # type: ignore[abstract]


def test_nothing_can_be_pushed_before_the_start() -> None:
    """And stopping does nothing then."""
    pool = MultiProcess(1)
    with pytest.raises(RuntimeError, match=r"call start\(\) first"):
        pool.push(InfoTask("a.B", 1))
    pool.stop()


def test_the_seeds_last_task_does_nothing() -> None:
    """Its own `stop` pushes one without a class."""
    pool = MultiProcess(1)
    pool.start()
    pool.push(InfoTask(False, 1))
    pool.stop()
