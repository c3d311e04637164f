"""Faults that are put back into a copy of the package, one at a time, to see that the simulation finds each.

By hand: ``bin/simulate --faults --jobs N``. Each was a real fault once, or is what a careless change would make of a
rule that the code's comments give reasons for.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import rpccluster

__all__ = ["FAULTS", "LONGEST_STORY", "Found", "PutBack", "find", "find_all"]

LONGEST_STORY = 40  # lines that a story should stay below
MOST_STORIES = 4  # that are looked at for one that does
PACKAGE = Path(rpccluster.__file__).resolve().parent


class PutBack(NamedTuple):
    """A fault: in ``file`` of the package, ``right`` becomes ``wrong``."""

    name: str
    file: str
    right: str
    wrong: str
    seed: int  # one that finds it; 0 if none is known since the code has changed


FAULTS = [
    PutBack(
        "a new master lives on when the old one has died before Go",
        "master/upgrade/old_master.py",
        "OldMasterEnded() if self._has_said_go else GaveUp()",
        "OldMasterEnded()",
        268,
    ),
    PutBack(
        "a stop does not end a new master that has not taken over",
        "master/control/commands.py",
        'self.new_master.give_up("this master stops")',
        "pass",
        14,
    ),
    PutBack(
        "a signal between Go and TookOver is obeyed at once",
        "master/supervisor.py",
        "() if parts.new_master.is_committing else parts.start.signals.take()",
        "parts.start.signals.take()",
        228,
    ),
    PutBack(
        "what the old master obeys meanwhile is not passed on",
        "master/upgrade/new_master.py",
        "self._to_pass_on.append(asked)",
        "pass",
        787,
    ),
    PutBack(
        "an upgrade that fails in the middle is not undone",
        "master/upgrade/new_master.py",
        "            self._tell(Undone())",
        "            pass",
        4467,
    ),
    PutBack(
        "a leaving master unlinks the paths",
        "master/resources/ownership.py",
        "*all_of(self._plugin_listeners)], is_last=False)",
        "*all_of(self._plugin_listeners)], is_last=True)",
        51,
    ),
    PutBack(
        "a worker that retires is not told that the cluster stops",
        "master/children/policy.py",
        "return child.retire_reason != group.phase.value",
        "return False",
        305,
    ),
    PutBack(
        "connections that a dead worker had not read are lost",
        "master/handover/broker.py",
        "so it has done nothing with the connection\n                transit.unplace()",
        "so it has done nothing with the connection\n                pass",
        173,
    ),
    PutBack(
        "the last messages of a dead worker are dropped",
        "master/children/roster.py",
        "            self._hear_out(child)\n",
        "            for source in child.sources():\n                self._loop.unwatch(source)\n",
        27,
    ),
    PutBack(
        "nobody answers the calls that died with a worker",
        "master/handover/broker.py",
        "self._tell(owner.connections, gone._replace(cid=cid))",
        "pass",
        4710,
    ),
    PutBack(
        "a reply for a connection on its way is dropped",
        "master/handover/broker.py",
        "transit.replies.append((passing, descriptors))",
        "close_all(descriptors)",
        143,
    ),
    PutBack(
        "the last copies of sockets that a dead worker has sent are not read",
        "master/handover/broker.py",
        "        self._collect(worker)\n        copies = self._copies.take_all(worker)\n",
        "        copies = self._copies.take_all(worker)\n",
        11,
    ),
    PutBack(
        "what a dead worker was given, and had not noted, is lost",
        "master/handover/copies.py",
        "            message = copy.given[0]  #",
        "            message = None  #",
        455,
    ),
    PutBack(
        "a slot whose workers cannot boot is not paused",
        "master/children/deaths.py",
        "    return min(most, delay * 2 ** min(extra - 1, KEPT_DEATHS)) if extra > 0 else 0.0",
        "    return 0.0",
        205,
    ),
    PutBack(
        "nothing wakes the loop when a fork may be tried again",
        "master/children/policy.py",
        "        moments.append(group.spawn_at)\n",
        "        pass\n",
        7,
    ),
    PutBack(
        "nothing wakes the loop when a retiring worker has taken too long",
        "master/children/policy.py",
        "        if child.kill_at is not None:\n            moments.append(child.kill_at)\n",
        "",
        168,
    ),
    PutBack(
        "a retiring worker that waits for calls is never dismissed",
        "master/children/policy.py",
        "            if child.stays and not group.is_awaited:\n                actions.append(Dismiss(child))\n",
        "",
        47,
    ),
    PutBack(
        "a connection is offered to a new master that has ended",
        "master/handover/broker.py",
        "        self._want_turn()\n        self._new_master = None\n",
        "        self._want_turn()\n",
        4878,
    ),
    PutBack(
        "a reload that is overtaken leaves its first worker",
        "master/changes/reload.py",
        'self._roster.kill(candidate, "overtaken by another reload")',
        "pass",
        41,
    ),
    PutBack(
        "a stop of a new master that has just taken over is forgotten",
        "master/parts.py",
        'self.old_master.say_why_it_ends("term")',
        "pass",
        2456,
    ),
    PutBack(
        "a new master that leaves to a third one does not tell the first",
        "master/parts.py",
        'self.old_master.say_why_it_ends("usr2")',
        "pass",
        2305,
    ),
    PutBack(
        "what needs the lead runs where it is not",
        "master/children/policy.py",
        "elif group.unled:",
        "elif False:",
        60,
    ),
    PutBack(
        "a master that leaves is asked for what has ended, and spins",
        "master/upgrade/giving_groups.py",
        " and group.name in self._untold",
        "",
        2812,
    ),
]


class Found(NamedTuple):
    """The first seed of many that finds a fault, what it says, and the story of the smallest run like that."""

    seed: int
    told: str
    story: list[str]


def find_all(seeds: str, jobs: int) -> int:
    """Put each fault back, look for it in ``seeds``, and print a table. Returns how many were not found."""
    missed = 0
    print("| fault | first seed | lines of its story | its last line |\n|---|---|---|---|")
    for fault in FAULTS:
        found = find(fault, seeds, jobs)
        missed += found is None
        shown = f"{found.seed} | {len(found.story)} | {found.told}" if found else "none | |"
        print(f"| {fault.name} | {shown} |", flush=True)
    return missed


def find(fault: PutBack, seeds: str, jobs: int = 1) -> Found | None:
    """Put ``fault`` back into a copy of the package, and look for it in ``seeds``. Returns None if none finds it.

    If the story of the first seed is long, that of a later one may be shorter: the shortest of a few is returned.
    """
    first, last = map(int, seeds.split(":"))
    best: Found | None = None
    with tempfile.TemporaryDirectory(prefix="rpccluster-faults-") as folder:
        _put_back(fault, Path(folder))
        for _ in range(MOST_STORIES):
            found = _search(folder, f"{first}:{last}", jobs) if first < last else None
            if found is None:
                break
            best = found if best is None or len(found.story) < len(best.story) else best
            if len(best.story) < LONGEST_STORY:
                break
            first = found.seed + 1
    return best


def _search(folder: str, seeds: str, jobs: int) -> Found | None:
    command = [sys.executable, "-m", "simulation", "--seeds", seeds, "--jobs", str(jobs)]
    environment = {**os.environ, "PYTHONPATH": folder}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    told = [line for line in lines if line.startswith("seed ")]
    if not told:
        assert done.returncode == 0, done.stderr
        return None
    seed, _, what = told[-1][len("seed ") :].partition(": ")
    return Found(int(seed), what, [line for line in lines if not line.startswith("seed ")])


def _put_back(fault: PutBack, folder: Path) -> None:
    unwanted = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, folder / "rpccluster", ignore=unwanted)
    shutil.copytree(Path(__file__).parent, folder / "simulation", ignore=unwanted)
    file = folder / "rpccluster" / fault.file
    text = file.read_text()
    assert text.count(fault.right) == 1, f"{fault.name}: {fault.file} has changed"
    file.write_text(text.replace(fault.right, fault.wrong))
