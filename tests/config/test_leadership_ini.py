"""etc/leadership.ini: that it shows every option of the leadership at its default, and loads as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rpccluster.config import Machine, Sources, load
from rpccluster.config.sections.leadership import LEADERSHIP

CHECKOUT = Path(__file__).resolve().parents[2]
SHIPPED = CHECKOUT / "etc" / "leadership.ini"
LINES = SHIPPED.read_text(encoding="utf-8").splitlines()
LINES = LINES[LINES.index("[leadership]") :]
OPTION_LINE = re.compile(r"(#?)([\w.]+) =(.*)")
SHOWN = {match[2]: (number, match) for number, line in enumerate(LINES) if (match := OPTION_LINE.fullmatch(line))}
ACTIVE = {"engine"}


def test_every_option_appears() -> None:
    """It shows every key and no other."""
    assert sorted(SHOWN) == sorted(LEADERSHIP.options)
    assert {key for key, (_, match) in SHOWN.items() if not match[1]} == ACTIVE


@pytest.mark.parametrize("key", sorted(set(LEADERSHIP.options) - ACTIVE))
def test_what_is_commented_out_is_the_default(key: str) -> None:
    """Removing the mark changes nothing."""
    assert SHOWN[key][1][3].strip() == LEADERSHIP.options[key].default_text


@pytest.mark.parametrize("key", sorted(LEADERSHIP.options))
def test_every_option_is_explained(key: str) -> None:
    """Its meaning stands above it, as the schema words it."""
    assert LINES[SHOWN[key][0] - 1] == f"# {LEADERSHIP.options[key].meaning}"


def test_it_loads_without_faults() -> None:
    """As it stands."""
    assert sorted(load(Sources(str(SHIPPED)), Machine()).others) == ["leadership"]
