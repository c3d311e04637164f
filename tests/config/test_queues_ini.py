"""etc/queues.ini: that it shows every option of queues at its default, and runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from rpccluster.config import Machine, Sources, load
from rpccluster.config.sections.queues import QUEUE, QUEUES

CHECKOUT = Path(__file__).resolve().parents[2]
SHIPPED = CHECKOUT / "etc" / "queues.ini"
LINES = SHIPPED.read_text(encoding="utf-8").splitlines()
OPTION_LINE = re.compile(r"(#?)([\w.]+) =(.*)")
ACTIVE = {"path", "max_size"}
OPTIONS: dict[str, Any] = {**QUEUES.options, **QUEUE.options}


def shown(header: str, end: int | None = None) -> dict[str, tuple[int, re.Match[str]]]:
    """The lines of the options of a section, by their keys."""
    begin = LINES.index(header)
    numbered = list(enumerate(LINES))[begin:end]
    return {match[2]: (number, match) for number, line in numbered if (match := OPTION_LINE.fullmatch(line))}


SHOWN = {**shown("[queues]", LINES.index("[queue:jobs]")), **shown("[queue:jobs]")}


def test_every_option_appears() -> None:
    """It shows every key in its section, and no other."""
    assert list(shown("[queues]", LINES.index("[queue:jobs]"))) == list(QUEUES.options)
    assert list(shown("[queue:jobs]")) == list(QUEUE.options)
    assert {key for key, (_, match) in SHOWN.items() if not match[1]} == ACTIVE


@pytest.mark.parametrize("key", sorted(OPTIONS.keys() - ACTIVE))
def test_what_is_commented_out_is_the_default(key: str) -> None:
    """Removing the mark changes nothing."""
    assert SHOWN[key][1][3].strip() == OPTIONS[key].default_text


@pytest.mark.parametrize("key", sorted(OPTIONS))
def test_every_option_is_explained(key: str) -> None:
    """Its meaning stands above it, as the schema words it."""
    assert LINES[SHOWN[key][0] - 1] == f"# {OPTIONS[key].meaning}"


def test_it_loads_without_faults(tmp_path: Path) -> None:
    """As it stands, and with every line in force."""
    assert sorted(load(Sources(str(SHIPPED)), Machine()).others) == ["queue:jobs", "queues"]
    copy = tmp_path / "etc" / "queues.ini"
    copy.parent.mkdir()
    copy.write_text(re.sub(r"^#(?=[\w.]+ =)", "", SHIPPED.read_text(), flags=re.MULTILINE))
    found = load(Sources(str(copy))).others
    assert (found["queues"].durable, found["queue:jobs"].max_size) == ("always", 100_000)
