"""What several processes change: whatever is killed or stopped in a change, the next one reads a whole one.

`SharedFile` keeps one name, under a lock; `Versions` makes a file of each version, and nobody waits for anybody.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from programs import needed

from rpccluster.leading.shared_file import SharedFile
from rpccluster.leading.versions import Versions
from rpccluster.testing import wait_until

FULL_SCALE = bool(os.environ.get("RPCCLUSTER_FULL_SCALE"))
KILLS = 1000 if FULL_SCALE else 60
CALLS = ("openat", "write", "fsync", "flock", "link", "read", "rename", "close", "unlink", "symlink", "getdents64")
NUMBERED = [f"f.{number}" for number in range(1, 12)]
CHECKOUT = Path(__file__).resolve().parents[2]

CHANGE = """
import json, sys
from rpccluster.leading.shared_file import SharedFile
from rpccluster.leading.versions import Versions
file = Versions(sys.argv[1], "victim") if sys.argv[2] == "Versions" else SharedFile(sys.argv[1], "victim", 5)
found = file.read()
number = json.loads(found)["n"] * 10 + 2  # tells upon what it was made
print(file.change(found, json.dumps({"n": number, "filling": "x" * 2000}).encode()), flush=True)
"""


Kind = Any  # SharedFile or Versions


@pytest.fixture(params=[SharedFile, Versions], ids=["file", "versions"])
def kind(request: pytest.FixtureRequest) -> Kind:
    """Both ways to change something."""
    return request.param


def left(folder: Path) -> list[str]:
    """What stands in the folder, without the numbers of versions."""
    return sorted(re.sub(r"^f\.[0-9]+$", "f.N", path.name) for path in folder.iterdir())


LEFT: dict[Kind, list[str]] = {SharedFile: ["f", "f.lock"], Versions: ["f", "f.N"]}


def content(number: int) -> bytes:
    """A content whose length depends on its number."""
    return json.dumps({"n": number, "filling": "x" * (number * 37 % 3000)}).encode()


def number_in(found: bytes) -> int:
    """The number of a whole content."""
    said = json.loads(found)
    assert found == content(said["n"]) or len(said["filling"]) == 2000
    return int(said["n"])


def test_a_change_is_made_only_upon_what_was_read(tmp_path: Path, kind: Kind) -> None:
    """Of two that have read the same, one changes it."""
    one, other = (kind(str(tmp_path / "f"), owner) for owner in ("one", "other"))
    assert one.read() == other.read() == b""
    assert one.change(b"", b"1")
    assert not other.change(b"", b"2")
    assert other.read() == b"1"
    assert other.change(b"1", b"2") and one.read() == b"2"
    one.clear()
    other.clear()
    assert left(tmp_path) == LEFT[kind] and (tmp_path / "f").read_bytes() == b"2"


def test_many_that_change_it_lose_no_change(tmp_path: Path, kind: Kind) -> None:
    """Each adds one, upon what it has read. Who is told that another one was faster may have been overtaken only."""
    path = str(tmp_path / "f")

    def add(owner: str) -> None:
        file = kind(path, owner)
        for _ in range(20):
            while True:
                found = file.read()
                if file.change(found, str(int(found or b"0") + 1).encode()):
                    break

    threads = [threading.Thread(target=add, args=(f"owner{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = int(kind(path, "reader").read())
    assert found == 80 if kind is SharedFile else found >= 80


def test_a_lock_that_is_held_is_not_waited_for_without_end(tmp_path: Path) -> None:
    """A stopped process may hold it."""
    import fcntl

    file = SharedFile(str(tmp_path / "f"), "one", lock_seconds=0.05)
    with open(tmp_path / "f.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(TimeoutError, match=r"another process holds .*/f\.lock"):
            file.change(b"", b"1")
    assert file.read() == b""


def test_a_thing_that_is_far_too_long_is_refused(tmp_path: Path, kind: Kind) -> None:
    """It is none of ours."""
    (tmp_path / ("f" if kind is SharedFile else "f.1")).write_bytes(b"x" * ((1 << 20) + 1))
    with pytest.raises(OSError, match="found more than"):
        kind(str(tmp_path / "f"), "one").read()


def test_a_kill_at_any_time_leaves_a_whole_content(tmp_path: Path, kind: Kind) -> None:
    """Of the last change or the one before it; and the next process changes it at once."""
    path, chance = str(tmp_path / "f"), random.Random(8)
    heir = kind(path, "heir")
    heir.change(heir.read(), content(0))
    for _ in range(KILLS):
        child = os.fork()
        if not child:
            file = kind(path, "victim")
            while True:
                found = file.read()
                file.change(found, content(number_in(found) + 1))
        time.sleep(chance.uniform(0.0, 0.01))  # the moment of the kill, no wait
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found = heir.read()
        assert heir.change(found, content(number_in(found) + 1))
    heir.sweep()
    heir.clear()
    assert left(tmp_path) == LEFT[kind]


def traced(kind: Kind, path: Path, call: str, number: int, what: str) -> subprocess.Popen[str]:
    """Start a change that gets a signal at its call ``number`` of that name that concerns the file."""
    paths = [
        option for name in ("f", "f.lock", ".f.victim.new", *NUMBERED) for option in ("-P", str(path.parent / name))
    ]
    inject = f"inject={call}:signal={what}:when={number}"
    strace = [needed("strace", "-V"), "-f", "-qq", "-e", f"trace={call}", "-e", inject, *paths]
    return subprocess.Popen(
        [*strace, sys.executable, "-S", "-c", CHANGE, str(path), kind.__name__],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
    )


@pytest.mark.parametrize("call", CALLS if FULL_SCALE else CALLS[2:7])
def test_a_kill_or_a_stop_at_each_system_call_harms_nobody(tmp_path: Path, kind: Kind, call: str) -> None:
    """A killed one has changed it wholly or not; a stopped one that goes on puts nothing old over what came then."""
    heir = SharedFile(str(tmp_path / "f"), "heir", 0.2) if kind is SharedFile else Versions(str(tmp_path / "f"), "heir")
    for number in range(1, 50 if FULL_SCALE else 3):
        heir.change(heir.read(), content(1))
        with traced(kind, tmp_path / "f", call, number, "KILL") as killed:
            told = killed.communicate(timeout=60)[0]
        assert number_in(heir.read()) in (1, 12)
        assert heir.change(heir.read(), content(1))
        stop(kind, tmp_path, heir, call, number)
        if "True" in told:
            return  # the change has fewer such calls


def stop(kind: Kind, folder: Path, heir: Any, call: str, number: int) -> None:
    """Stop a change at that call, change the file meanwhile if its lock allows that, and let it go on."""
    with traced(kind, folder / "f", call, number, "STOP") as stopped:
        wait_until(lambda: stopped.poll() is not None or stopped_child(stopped.pid), what="it stops, or ends")
        before = number_in(heir.read())
        assert before in (1, 12)
        try:
            has_changed = heir.change(heir.read(), content(3))
        except TimeoutError:  # it holds the lock
            assert kind is SharedFile
            has_changed = False
        wait_until(lambda: go_on(stopped), what="it ends")
    after = number_in(heir.read())
    assert after in ((3, 32) if has_changed else (before, 12))
    heir.change(heir.read(), content(1))


def go_on(stopped: subprocess.Popen[str]) -> bool:
    """Let a stopped change go on; return whether it has ended."""
    child = stopped_child(stopped.pid)
    if child:
        os.kill(child, signal.SIGCONT)
    return stopped.poll() is not None


def stopped_child(tracer: int) -> int:
    """The pid of the traced process if it is stopped by a signal of its group, as ps(1) shows it; else 0."""
    try:
        children = Path(f"/proc/{tracer}/task/{tracer}/children").read_text().split()
        for child in children:
            state = Path(f"/proc/{child}/status").read_text()
            if re.search(r"^State:\s+[tT]", state, re.MULTILINE) and "SigPnd" in state:
                time.sleep(0.05)  # strace stops it for a moment at each call, too
                state = Path(f"/proc/{child}/status").read_text()
                if re.search(r"^State:\s+[tT]", state, re.MULTILINE):
                    return int(child)
    except OSError:
        pass
    return 0
