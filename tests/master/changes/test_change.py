"""A command's change on its way: voted, proved, written, in force; or it fails and leaves nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rpccluster.config import Machine
from rpccluster.config.changes.changing import divided, with_values
from rpccluster.config.changes.writing import rewriting
from rpccluster.ipc.messages import Accept, Vote
from rpccluster.ipc.scoreboard import CommonCell
from rpccluster.master.changes.change import Change, Stage
from rpccluster.master.history import Author, History, read_history

from ..made_up import ready
from .test_reload import Reloadable, reloadable

__all__ = ["reloadable"]  # the fixture


class Changing:
    """A cluster whose values a command changes."""

    def __init__(self, reloadable: Reloadable) -> None:
        self.rig = reloadable
        self.reloading = reloadable.reloading
        self.cluster = reloadable.cluster
        self.cluster.history = History(f"{reloadable.folder}/x.ini.history")

    def change(self, *, write: bool = False, **changes: str) -> Change:
        named = {name.replace("__", "."): text for name, text in changes.items()}
        running = self.cluster.configuration
        written = rewriting(running, named) if write else None
        changed = with_values(running, named, Machine(), written.places if written else None)
        return self.reloading.change(changed, [divided(name) for name in named], Author("config set", 7), written)

    def vote(self, refusal: str = "", attempt: int = 1) -> None:
        for child in self.rig.workers.children:
            self.reloading.pushing.note_vote(child, Vote(attempt, refusal))
        self.reloading.note_progress()

    def switch(self) -> None:
        for child in self.rig.workers.children:
            child.row[CommonCell.SETTINGS_VERSION] = self.cluster.settings_version
            self.reloading.pushing.note_switched(child)
        self.reloading.note_progress()

    def in_force(self) -> tuple[int, float, str | None]:
        texts = self.cluster.settings.texts
        return self.cluster.settings_version, self.cluster.options.call_timeout, texts.get("price")


@pytest.fixture
def changing(reloadable: Reloadable) -> Changing:
    return Changing(reloadable)


def test_settings_and_options_are_one_version(changing: Changing, tmp_path: Path) -> None:
    """Voted on, recorded, then in force at once, and done when all have switched."""
    change = changing.change(settings__price="2", call_timeout="3")
    assert (change.stage, changing.in_force()) == (Stage.VOTING, (1, 0.0, None))
    changing.vote()
    assert (change.stage, changing.in_force()) == (Stage.SETTLING, (2, 3.0, "2"))
    assert not change.is_done
    (told, *_) = [message for _, message, *_ in changing.rig.told if hasattr(message, "options")]
    assert (told.version, told.texts, told.options["call_timeout"]) == (2, {"price": "2"}, 3.0)
    changing.switch()
    assert (change.is_done, change.failure, changing.reloading.is_under_way) == (True, "", False)
    recorded = read_history(f"{tmp_path}/x.ini.history").versions[-1]
    assert recorded[:4] == (2, "2026-01-02T00:00:00Z", 7, "config set")
    assert recorded.changes == {"settings.price": (None, "2"), "call_timeout": ("0", "3")}


def test_a_refusal_leaves_everything(changing: Changing, tmp_path: Path) -> None:
    """Nothing is recorded or written."""
    text = (tmp_path / "x.ini").read_text()
    change = changing.change(settings__price="2", call_timeout="3", write=True)
    changing.vote("too much")
    assert (change.is_done, "too much" in change.failure) == (True, True)
    assert changing.in_force() == (1, 0.0, None)
    assert not (tmp_path / "x.ini.history").exists()
    assert (tmp_path / "x.ini").read_text() == text


def test_it_is_in_force_only_when_it_is_on_the_disk(changing: Changing, tmp_path: Path) -> None:
    """A reload that comes meanwhile waits, and then finds the new value in the file."""
    changing.rig.saving.is_held_up = True
    change = changing.change(call_timeout="3", write=True)
    assert (change.stage, changing.in_force()[0]) == (Stage.WRITING, 1)
    changing.reloading.begin(is_all=False)
    assert not change.is_done
    assert changing.reloading.is_staged
    changing.rig.saving.end()
    changing.reloading.note_progress()
    assert (change.stage, changing.in_force()[0]) == (Stage.RECORDING, 1)
    assert "call_timeout = 3" in (tmp_path / "x.ini").read_text()
    changing.rig.saving.end()
    changing.reloading.note_progress()
    assert changing.in_force() == (2, 3.0, None)
    changing.switch()
    changing.reloading.note_progress()
    assert (changing.reloading.is_complete, changing.reloading.failure, changing.in_force()) == (
        True,
        "",
        (2, 3.0, None),
    )


def test_a_file_that_cannot_be_written_changes_nothing(changing: Changing, tmp_path: Path) -> None:
    """The first worker that has proved the change goes again. It did not accept yet."""
    text = (tmp_path / "x.ini").read_text()
    change = changing.change(accept_lock="false", write=True)
    assert change.stage is Stage.PROVING
    worker = ready(0, edition=changing.cluster.staged)
    (tmp_path / "x.ini").write_text(text + "# somebody was here\n")
    changing.reloading.note_proved(worker)
    assert (change.is_done, "it has changed since it was read" in change.failure) == (True, True)
    assert changing.rig.killed == [(worker, "what it has proved could not be written")]
    assert changing.cluster.options.accept_lock
    assert changing.cluster.staged is None
    assert not [message for _, message, *_ in changing.rig.told if isinstance(message, Accept)]


def test_one_that_has_proved_it_accepts_when_it_is_in_force(changing: Changing) -> None:
    """And the others follow."""
    changing.change(accept_lock="false")
    worker = ready(0, edition=changing.cluster.staged)
    changing.reloading.note_proved(worker)
    assert [message for child, message, *_ in changing.rig.told if child is worker] == [Accept()]
    assert (changing.cluster.generation, changing.rig.workers.is_rolling) == (2, True)


def test_a_version_counts_without_its_history(changing: Changing, tmp_path: Path, caplog: Any) -> None:
    """The log says so."""
    (tmp_path / "x.ini.history").mkdir()
    change = changing.change(call_timeout="3")
    assert changing.in_force() == (2, 3.0, None)
    assert "The history lacks version 2: cannot write" in caplog.text
    changing.switch()
    assert (change.is_done, change.failure) == (True, "")


def test_what_scale_has_set_stays(changing: Changing) -> None:
    """A command changes what it names; only a reload brings the file's number back."""
    changing.rig.workers.wanted = 5
    changing.change(call_timeout="3")
    assert changing.rig.workers.wanted == 5
    assert not changing.rig.workers.is_rolling
    changing.switch()
    changing.change(number_workers="4")
    assert changing.rig.workers.wanted == 4


@pytest.mark.parametrize("when", ["vote", "proof", "write"])
def test_a_stop_ends_it(changing: Changing, when: str) -> None:
    """Wherever it is; what it has opened is closed."""
    changing.rig.saving.is_held_up = True
    change = changing.change(
        **{"vote": {"settings__price": "2"}, "proof": {"accept_lock": "false"}}.get(when, {}),
        write=when == "write",
        **({"call_timeout": "3"} if when == "write" else {}),
    )
    assert change.stage is {"vote": Stage.VOTING, "proof": Stage.PROVING, "write": Stage.WRITING}[when]
    changing.reloading.give_up("the cluster stops")
    assert (change.is_done, change.failure) == (True, "the cluster stops")
    assert (changing.reloading.is_under_way, changing.cluster.staged) == (False, None)
    changing.reloading.note_progress()
    assert changing.in_force() == (1, 0.0, None)
