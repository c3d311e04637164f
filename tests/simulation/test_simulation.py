"""Many afternoons of a master, made up by seeds; ``bin/simulate`` lives through as many as one likes."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .afternoon import live_through
from .children.serving.worker import Worker

FULL_SCALE = bool(os.environ.get("RPCCLUSTER_FULL_SCALE"))
IS_CI = bool(os.environ.get("CI"))
SEEDS = 20_000 if FULL_SCALE else 4_000 if IS_CI else 400
SECONDS = 900 if FULL_SCALE or IS_CI else 100  # far beyond what they take
CHECKOUT = Path(__file__).parent.parent.parent


def simulate(*arguments: str, python: str = sys.executable, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, which no other test has used."""
    return subprocess.run(
        [python, "-m", "simulation", *arguments],
        cwd=CHECKOUT / "tests",
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=SECONDS,
    )


@pytest.mark.timeout(SECONDS + 20)
def test_nothing_goes_wrong_in_any_of_them() -> None:
    """And every row of the tables of states is met, and every message, if there are enough of them."""
    arguments = ["--seeds", f"1:{SEEDS + 1}", "--jobs", str(os.cpu_count() or 1)]
    done = simulate(*arguments, *(["--complete"] if FULL_SCALE or IS_CI else []))
    assert done.returncode == 0, done.stdout


def test_the_same_seeds_make_the_same_stories() -> None:
    """To the byte, whatever the order in which this interpreter lists a set."""
    one, other = (simulate("--seeds", "1:41", "--digest", PYTHONHASHSEED=seed).stdout for seed in ("1", "2"))
    assert one == other != ""


@pytest.mark.timeout(SECONDS + 20)
@pytest.mark.parametrize("name", ["python3.9", "python3.13", "pypy3"])
def test_another_interpreter_tells_the_same_stories(name: str) -> None:
    """To the byte, on a kind and a version of Python that has what the simulation imports."""
    python = _other_interpreter(name)
    one, other = (
        simulate("--seeds", "1:11", "--digest", python=each, PYTHONPATH=str(CHECKOUT)).stdout
        for each in (sys.executable, python)
    )
    assert one == other != ""


def _other_interpreter(name: str) -> str:
    """Return the path of an interpreter: of the environment that ``bin/simulate --python`` has made, or any."""
    for wanted in (str(CHECKOUT / f".venv-{name}" / "bin" / "python"), name):
        path = shutil.which(wanted)
        if path and subprocess.run([path, "-c", "import msgpack"], capture_output=True, check=False).returncode == 0:
            return path
    pytest.skip(f"no {name} with msgpack is here: bin/simulate --python {name} makes an environment for it")


@pytest.mark.parametrize("seed", [3, 30, 91])
def test_the_same_seed_makes_the_same_story(seed: int) -> None:
    """However the process that tells it has been used before."""
    gc.collect()  # a descriptor of another test would be missed at the end
    assert live_through(seed).story == live_through(seed).story


@pytest.mark.parametrize("seed", [2_008_095])
def test_a_seed_that_has_met_a_fault_meets_none(seed: int) -> None:
    """It lies far beyond those that are lived through each time."""
    gc.collect()
    assert live_through(seed).fault == ""


def test_an_exception_of_a_process_is_told_as_a_story(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends its own afternoon, and not the search through all the others."""

    def breaks(_worker: Worker) -> None:
        raise ValueError("an order that no script knows")

    monkeypatch.setattr(Worker, "step", breaks)
    outcome = live_through(3)
    assert outcome.fault == "ValueError is raised in breaks of test_simulation.py: an order that no script knows"
    assert outcome.story[-1].endswith(outcome.fault)
