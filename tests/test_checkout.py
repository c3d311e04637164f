"""The checkout sets itself up: once, under a lock, whatever was interrupted before, whoever starts beside.

The interpreter is made up: it "makes" environments and "installs" by writing down that it was asked to.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rpccluster.testing import is_alive, wait_until

CHECKOUT = Path(__file__).resolve().parent.parent

PYTHON = """#!/bin/sh
here=$(dirname "$0")
case "$2" in
venv)
    echo "venv by $0" >> "$STORY"
    mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && printf '#!%s/bin/python\\n' "$3" > "$3/bin/script"
    ;;
pip)
    for last; do :; done
    echo "pip $last" >> "$STORY"
    while [ -n "$HOLD" ] && [ -e "$HOLD" ]; do sleep 0.02; done
    exit ${PIP_STATUS:-0}
    ;;
pytest)
    echo "pytest $3" >> "$STORY"
    mkdir -p .pytest_cache/v/cache
    [ "$3" = --last-failed ] || { cat failed > .pytest_cache/v/cache/lastfailed; exit 1; }
    exit "$AGAIN"
    ;;
*)
    echo "ran $here $*"
    ;;
esac
"""

LAUNCHER = """
import sys
sys.path.insert(0, "bin")
import checkout
extra, python, *rest = sys.argv[1:]
checkout.run_module("module", rest, extra=extra, python=python or None)
"""


class Checkout:
    """A copy of the launcher's part of the checkout, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.story_file = folder.parent / "story"
        self.hold_file = folder.parent / "hold"
        self.running: list[subprocess.Popen[str]] = []
        (folder / "bin").mkdir(parents=True)
        for name in ("checkout.py", "test"):
            shutil.copy(CHECKOUT / "bin" / name, folder / "bin")
        (folder / "setup.py").write_text("first")
        self.python = self.make_python(folder.parent / "one" / "python9")

    def make_python(self, path: Path) -> str:
        path.parent.mkdir(exist_ok=True)
        path.write_text(PYTHON)
        path.chmod(0o755)
        return str(path)

    def begin(self, extra: str = "", python: str | None = None, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, extra, self.python if python is None else python, "argument"],
            cwd=self.folder,
            env={**os.environ, "STORY": str(self.story_file), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.running.append(process)
        return process

    def start(self, extra: str = "", python: str | None = None, **environment: str) -> tuple[int, str, str]:
        """Exit code, output and errors of one start."""
        process = self.begin(extra, python, **environment)
        output, errors = process.communicate(timeout=60)
        return process.returncode, output, errors

    def story(self) -> list[str]:
        """What the made-up interpreter was asked for since the last look, without the paths."""
        text = self.story_file.read_text() if self.story_file.exists() else ""
        self.story_file.write_text("")
        return [line.partition(" by ")[0].replace(str(self.folder), "HERE") for line in text.splitlines()]

    def hold(self) -> dict[str, str]:
        """Let pip wait until `release`."""
        self.hold_file.touch()
        return {"HOLD": str(self.hold_file)}

    def release(self) -> None:
        self.hold_file.unlink(missing_ok=True)

    def wait_story(self, text: str) -> None:
        wait_until(lambda: self.story_file.exists() and text in self.story_file.read_text(), 20, text)


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Checkout]:
    """Every process that it started has ended at the end."""
    made = Checkout(tmp_path / "checkout")
    yield made
    made.release()
    for process in made.running:
        process.kill()
        process.communicate()


def test_the_first_start_sets_up_and_the_next_does_not(checkout: Checkout) -> None:
    """Then it becomes the program, in the environment."""
    code, output, errors = checkout.start()
    assert (code, output) == (0, f"ran {checkout.folder}/.venv-python9/bin -m module argument\n")
    assert errors == "rpccluster: setting up .venv-python9\n"
    assert checkout.story() == ["venv", "pip HERE"]
    assert checkout.start() == (0, output, "")
    assert checkout.story() == []
    made = checkout.folder / ".venv-python9" / "bin"
    assert (made / "script").read_text() == f"#!{made}/python\n"


def test_an_extra_is_added_to_what_is_there(checkout: Checkout) -> None:
    """The project itself counts as installed with it."""
    checkout.start()
    checkout.story()
    checkout.start("test")
    assert checkout.story() == ["pip HERE[test]"]
    checkout.start("test")
    checkout.start()
    assert checkout.story() == []


def test_an_extra_first_is_enough_for_the_project(checkout: Checkout) -> None:
    """`bin/test` before the first `bin/rpccluster`."""
    checkout.start("test")
    checkout.start()
    assert checkout.story() == ["venv", "pip HERE[test]"]


def test_new_requirements_are_installed(checkout: Checkout) -> None:
    """When setup.py has changed, for each extra when it is asked for."""
    checkout.start("test")
    checkout.story()
    (checkout.folder / "setup.py").write_text("second")
    checkout.start()
    checkout.start("test")
    checkout.start("test")
    assert checkout.story() == ["pip HERE", "pip HERE[test]"]


def test_two_first_starts_at_once_set_up_once(checkout: Checkout) -> None:
    """The second waits for the first and goes on with what that has made."""
    held = checkout.hold()
    first = checkout.begin(**held)
    checkout.wait_story("pip")
    second = checkout.begin(**held)
    wait_until(lambda: _waits_for_a_lock(second.pid), 20, "it waits")
    checkout.release()
    assert first.wait(60) == second.wait(60) == 0
    assert checkout.story() == ["venv", "pip HERE"]


def _waits_for_a_lock(pid: int) -> bool:
    """Whether /proc/locks shows the process among those that wait: proc(5)."""
    lines = Path("/proc/locks").read_text().splitlines()
    return any("-> FLOCK" in line and f" {pid} " in line for line in lines)


def test_twenty_first_starts_at_once(checkout: Checkout) -> None:
    """All get their program."""
    runs = [checkout.begin("test" if number % 2 else "") for number in range(20)]
    assert [run.communicate(timeout=60)[0].partition(" ")[0] for run in runs] == ["ran"] * 20
    story = checkout.story()
    assert story.count("venv") == 1
    assert sorted(set(story)) in (["pip HERE", "pip HERE[test]", "venv"], ["pip HERE[test]", "venv"])


def test_a_set_up_that_was_killed_begins_anew(checkout: Checkout) -> None:
    """In the middle of an installation: what it left is not trusted; whatever it still runs is waited for."""
    killed = checkout.begin(**checkout.hold())
    checkout.wait_story("pip")
    (pip,) = map(int, Path(f"/proc/{killed.pid}/task/{killed.pid}/children").read_text().split())
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    again = checkout.begin()
    assert is_alive(pip)
    with pytest.raises(subprocess.TimeoutExpired):
        again.wait(0.3)
    checkout.release()
    assert again.wait(60) == 0
    assert checkout.story() == ["venv", "pip HERE", "venv", "pip HERE"]


def test_a_set_up_killed_while_it_builds_begins_anew(checkout: Checkout) -> None:
    """A half-made environment is never found under its name."""
    building = checkout.folder / ".venv-python9.building"
    (building / "bin").mkdir(parents=True)
    (building / "rubbish").touch()
    assert checkout.start()[0] == 0
    assert not building.exists()
    assert not (checkout.folder / ".venv-python9" / "rubbish").exists()


def test_an_installation_that_fails_is_told_and_tried_again(checkout: Checkout) -> None:
    """Exit code 1; what was installed before stays of use, offline for instance."""
    assert checkout.start()[0] == 0
    code, output, errors = checkout.start("test", PIP_STATUS="7")
    assert (code, output) == (1, "")
    assert "rpccluster: set-up failed: " in errors
    assert errors.endswith("ended with 7\n")
    checkout.story()
    assert checkout.start()[0] == 0
    assert checkout.story() == []
    assert checkout.start("test")[0] == 0
    assert checkout.story() == ["pip HERE[test]"]


def test_an_interpreter_that_has_gone_is_replaced(checkout: Checkout) -> None:
    """The system's Python was upgraded, and the environment points to nothing."""
    checkout.start()
    checkout.story()
    (checkout.folder / ".venv-python9/bin/python").unlink()
    (checkout.folder / ".venv-python9/bin/python").symlink_to("/nowhere/python")
    assert checkout.start()[0] == 0
    assert checkout.story() == ["venv", "pip HERE"]


def test_another_interpreter_of_the_same_name_gets_its_own(checkout: Checkout) -> None:
    """`--python /a/python9` then `--python /b/python9`: never the one for the other."""
    other = checkout.make_python(checkout.folder.parent / "two" / "python9")
    checkout.start()
    checkout.start(python=other)
    assert checkout.story() == ["venv", "pip HERE"] * 2
    checkout.start(python=other)
    assert checkout.story() == []


def test_a_checkout_that_was_moved_installs_itself_again(checkout: Checkout) -> None:
    """An editable installation names the folder."""
    checkout.start()
    checkout.story()
    moved = checkout.folder.with_name("moved")
    checkout.folder.rename(moved)
    checkout.folder = moved
    code, output, _ = checkout.start()
    assert (code, output) == (0, f"ran {moved}/.venv-python9/bin -m module argument\n")
    assert "pip HERE" in checkout.story()


def test_an_interrupt_says_so(checkout: Checkout) -> None:
    """Without a traceback, and the next start begins anew."""
    process = checkout.begin(**checkout.hold())
    checkout.wait_story("pip")
    process.send_signal(signal.SIGINT)
    checkout.release()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "set-up interrupted" in errors
    assert "Traceback" not in errors
    assert checkout.start()[0] == 0


@pytest.mark.parametrize(
    ("failed", "again", "code", "runs"),
    [
        (1, 0, 0, ["pytest --numprocesses", "pytest --last-failed"]),
        (1, 1, 1, ["pytest --numprocesses", "pytest --last-failed"]),
        (11, 0, 1, ["pytest --numprocesses"]),
        (0, 0, 1, ["pytest --numprocesses"]),
    ],
    ids=["it passes alone", "it fails again", "more than disturbances", "no test"],
)
def test_what_fails_beside_other_tests_runs_once_more(
    checkout: Checkout, failed: int, again: int, code: int, runs: list[str]
) -> None:
    """It is told, and what fails again has failed."""
    ids = [f"tests/test_{number}.py::test" for number in range(failed)]
    (checkout.folder / "failed").write_text(json.dumps(dict.fromkeys(ids, True)))
    done = subprocess.run(
        [sys.executable, "bin/test", "--python", checkout.python],
        cwd=checkout.folder,
        env={**os.environ, "STORY": str(checkout.story_file), "AGAIN": str(again)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == code
    assert [line for line in checkout.story() if line.startswith("pytest")] == runs
    told = "".join(f"\n  {id_}" for id_ in ids)
    assert (f"failed beside other tests, run once more without them:{told}\n" in done.stdout) == (len(runs) == 2)


def test_every_folder_of_the_package_is_installed() -> None:
    """A folder without __init__.py would be missing in a wheel, though an editable installation finds it."""
    folders = {path.parent for path in (CHECKOUT / "rpccluster").rglob("*.py")}
    assert all((folder / "__init__.py").exists() for folder in folders)
