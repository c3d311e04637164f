"""What becomes of a plugin's lines: where they are written, when the file is rotated, which are kept."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from rpccluster.config.sections.plugin import PluginOptions
from rpccluster.master.kinds.plugins import output as plugin_output
from rpccluster.master.kinds.plugins.output import PluginOutput


class Shared:
    """The outlet of the cluster's log, which only notes."""

    def __init__(self) -> None:
        self.written: list[str] = []

    def write(self, line: bytes) -> None:
        self.written.append(line.decode())


@pytest.fixture
def shared() -> Any:
    return Shared()


def led(shared: Any, **options: Any) -> PluginOutput:
    output = PluginOutput("a", lambda: shared)
    output.lead_to(PluginOptions(run="a:b", **options))
    return output


def texts(path: Path) -> list[str]:
    return [line.rpartition("] ")[2] for line in path.read_text().splitlines()]


def test_lines_go_to_the_clusters_log_with_pid_and_name(shared: Any) -> None:
    """Where no file is named."""
    output = led(shared)
    output.write(7, ["one", "zwei ü"])
    assert [line.split("] ", 1)[1] for line in shared.written] == ["[7] [a] one\n", "[7] [a] zwei ü\n"]
    assert output.files is None


def test_lines_go_to_a_file_of_its_own(shared: Any, tmp_path: Path) -> None:
    """Opened for appending, and again at its path, since it may have been renamed; another one if that is named."""
    path = tmp_path / "logs" / "a.log"
    output = led(shared, log_file=str(path))
    output.write(7, ["one"])
    path.rename(tmp_path / "old")
    output.reopen()
    output.write(7, ["two"])
    assert (texts(tmp_path / "old"), texts(path), shared.written) == (["one"], ["two"], [])
    output.lead_to(PluginOptions(run="a:b", log_file=str(tmp_path / "b.log")))
    output.write(7, ["three"])
    assert (texts(path), texts(tmp_path / "b.log")) == (["two"], ["three"])
    output.lead_to(PluginOptions(run="a:b"))
    output.write(7, ["four"])
    assert len(shared.written) == 1


def test_a_file_that_cannot_be_opened_changes_nothing(
    shared: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says why, and the lines are not lost."""
    output = led(shared, log_file=str(tmp_path))
    output.write(7, ["one"])
    assert len(shared.written) == 1
    assert "Cannot open the log of plugin a" in caplog.text


def test_a_file_is_rotated_when_it_is_too_large(shared: Any, tmp_path: Path) -> None:
    """As many as are wanted are kept, the newest first; what it held at the start counts."""
    path = tmp_path / "a.log"
    path.write_text("x" * 90 + "\n")
    output = led(shared, log_file=str(path), log_max_size=100, log_backups=2)
    for text in ("one", "two", "three"):
        output.write(7, [text * 40])
    assert texts(path) == []
    assert texts(Path(f"{path}.1")) == ["three" * 40]
    assert texts(Path(f"{path}.2")) == ["two" * 40]
    assert not Path(f"{path}.3").exists()


def test_without_backups_a_full_file_is_dropped(shared: Any, tmp_path: Path) -> None:
    """And begun anew."""
    path = tmp_path / "a.log"
    output = led(shared, log_file=str(path), log_max_size=10, log_backups=0)
    output.write(7, ["one"])
    output.write(7, ["two"])
    assert os.listdir(tmp_path) == ["a.log"]
    assert texts(path) == []


def test_what_is_no_regular_file_is_never_rotated(shared: Any, tmp_path: Path) -> None:
    """A pipe, or a device."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    output = led(shared, log_file=str(path), log_max_size=10)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    output.write(7, ["one", "two"])
    output.write(7, ["three"])
    assert os.read(reader, 1000).count(b"\n") == 3
    assert os.listdir(tmp_path) == ["pipe"]
    os.close(reader)
    output.close()


def test_a_rotation_that_fails_loses_no_line(shared: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is tried again when as much has been written."""
    path = tmp_path / "a.log"
    output = led(shared, log_file=str(path), log_max_size=10, log_backups=1)
    (tmp_path / "a.log.1").mkdir()
    output.write(7, ["one"])
    output.write(7, ["two"])
    assert texts(path) == ["one", "two"]
    assert "Cannot rotate the log of plugin a" in caplog.text


def test_the_last_lines_are_kept_within_bounds(shared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By number and by size."""
    output = led(shared)
    monkeypatch.setattr(plugin_output, "KEPT_LINES", 3)
    output.write(7, [str(number) for number in range(10)])
    assert [line[-1] for line in output.tail(100).lines] == ["7", "8", "9"]
    assert [line[-1] for line in output.tail(2).lines] == ["8", "9"]
    assert output.tail(0) == ([], 10)
    assert [line[-1] for line in output.tail(100, 9).lines] == ["9"]
    monkeypatch.setattr(plugin_output, "KEPT_CHARACTERS", 100)
    output.write(7, ["x" * 50])
    assert len(output.tail(100).lines) == 1


def test_a_number_of_another_master_counts_as_none(shared: Any) -> None:
    """One that has taken over counts anew: whoever follows gets what there is."""
    output = led(shared)
    output.write(7, ["one"])
    assert len(output.tail(100, 50).lines) == 1
