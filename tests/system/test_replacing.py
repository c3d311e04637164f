"""The content of a file, replaced at one stroke: whole, durable, with everything else about the file as it was."""

from __future__ import annotations

import errno
import os
import random
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rpccluster.system.replacing import replace_content

KILLS = 100 if os.environ.get("RPCCLUSTER_FULL_SCALE") else 15
OLD, NEW = b"old\n" * 1000, b"new\n" * 2000

#: Replaces one content by the other as long as it lives.
REPLACING = """
import sys
from rpccluster.system.replacing import replace_content

path, contents = sys.argv[1], (b"old\\n" * 1000, b"new\\n" * 2000)
present = open(path, "rb").read()
while True:
    new = contents[present == contents[0]]
    replace_content(path, present, new)
    present = new
    print("again", flush=True)
"""


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    """A file with the old content and a mode of its own; nothing else stays in its folder."""
    path = tmp_path / "cluster.ini"
    path.write_bytes(OLD)
    path.chmod(0o640)
    yield path
    assert {each.name for each in tmp_path.iterdir()} <= {"cluster.ini", "link", "other"}


def test_mode_and_symbolic_link_stay(file: Path, tmp_path: Path) -> None:
    """A link is followed: the file that it leads to has the new content."""
    link = tmp_path / "link"
    link.symlink_to("cluster.ini")
    replace_content(str(link), OLD, NEW)
    assert file.read_bytes() == NEW
    assert os.readlink(link) == "cluster.ini"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_the_owner_stays(file: Path) -> None:
    """Also where another account replaces the content."""
    os.chown(file, 1234, 4321)
    replace_content(str(file), OLD, NEW)
    status = file.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (1234, 4321, 0o640)


def test_a_file_that_has_changed_is_left_alone(file: Path) -> None:
    """Whoever changed it would lose his change."""
    file.write_bytes(OLD[:-1] + b"!")
    with pytest.raises(OSError, match="it has changed since it was read"):
        replace_content(str(file), OLD, NEW)
    assert file.read_bytes() == OLD[:-1] + b"!"


def test_a_file_with_a_second_name_is_left_alone(file: Path, tmp_path: Path) -> None:
    """A hard link would keep the old content."""
    os.link(file, tmp_path / "other")
    with pytest.raises(OSError, match="second hard link"):
        replace_content(str(file), OLD, NEW)


@pytest.mark.parametrize("call", ["write", "fsync", "rename", "fchmod"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_refuses_leaves_the_file_whole(
    file: Path, call: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever step fails, and nothing stays beside it."""

    def fails(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, fails)
    with pytest.raises(OSError, match=os.strerror(number)):
        replace_content(str(file), OLD, NEW)
    monkeypatch.undo()
    assert file.read_bytes() == OLD


def test_a_full_disk_leaves_the_file_whole(file: Path) -> None:
    """A limit of the kernel, in the middle of the content."""
    program = f"""
import resource, signal
from rpccluster.system.replacing import replace_content
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    replace_content({str(file)!r}, {OLD!r}, {NEW!r})
except OSError as error:
    print(error.strerror)
"""
    found = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, check=True, text=True)
    assert found.stdout.strip() == os.strerror(errno.EFBIG)
    assert file.read_bytes() == OLD


def test_what_a_killed_process_has_left_is_used_again(file: Path) -> None:
    """It is a file of this user's beside the other; a stranger's thing there is not touched."""
    beside = file.with_name(".cluster.ini.new")
    beside.write_bytes(b"half")
    replace_content(str(file), OLD, NEW)
    assert file.read_bytes() == NEW
    beside.symlink_to("elsewhere")
    with pytest.raises(OSError):
        replace_content(str(file), NEW, OLD)
    beside.unlink()
    assert file.read_bytes() == NEW


def test_one_process_writes_at_a_time(file: Path) -> None:
    """Of several that begin together each either replaces the whole content, or says why not."""
    program = REPLACING.replace("while True", "for _ in range(20)").replace(
        "    replace_content(path, present, new)",
        "    try:\n        replace_content(path, present, new)\n    except OSError: new = open(path, 'rb').read()",
    )
    started = [
        subprocess.Popen([sys.executable, "-c", program, str(file)], stdout=subprocess.DEVNULL) for _ in range(4)
    ]
    assert [each.wait(60) for each in started] == [0] * 4
    assert file.read_bytes() in (OLD, NEW)


def test_killed_in_the_middle_it_leaves_the_old_or_the_new(file: Path, tmp_path: Path) -> None:
    """At any moment: whole, with its mode, behind its link; and the next one can replace it."""
    link = tmp_path / "link"
    link.symlink_to("cluster.ini")
    for _ in range(KILLS):
        process = subprocess.Popen([sys.executable, "-c", REPLACING, str(link)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(random.uniform(0, 0.02))  # any moment will do
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        present = file.read_bytes()
        assert present in (OLD, NEW)
        assert stat.S_IMODE(file.stat().st_mode) == 0o640
        assert link.is_symlink()
    replace_content(str(link), present, b"last")
    assert file.read_bytes() == b"last"
