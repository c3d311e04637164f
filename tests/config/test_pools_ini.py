"""etc/pools.ini: that it shows every option of a pool at its default, and runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rpccluster.config import Machine, Sources, load
from rpccluster.config.sections.pool import POOL

CHECKOUT = Path(__file__).resolve().parents[2]
SHIPPED = CHECKOUT / "etc" / "pools.ini"
LINES = SHIPPED.read_text(encoding="utf-8").splitlines()
LINES = LINES[LINES.index("[pool:numbers]") :]
OPTION_LINE = re.compile(r"(#?)([\w.]+) =(.*)")
SHOWN = {match[2]: (number, match) for number, line in enumerate(LINES) if (match := OPTION_LINE.fullmatch(line))}
ACTIVE = {"processes", "targets", "timeout"}
FAMILIES = {"env": "env.TZ"}


def test_every_option_appears() -> None:
    """It shows every key and no other."""
    assert sorted(SHOWN) == sorted(FAMILIES.get(key, key) for key in POOL.options)
    assert {key for key, (_, match) in SHOWN.items() if not match[1]} == ACTIVE


@pytest.mark.parametrize("key", sorted(set(POOL.options) - ACTIVE - FAMILIES.keys()))
def test_what_is_commented_out_is_the_default(key: str) -> None:
    """Removing the mark changes nothing."""
    assert SHOWN[key][1][3].strip() == POOL.options[key].default_text


@pytest.mark.parametrize("key", sorted(POOL.options))
def test_every_option_is_explained(key: str) -> None:
    """Its meaning stands above it, as the schema words it."""
    assert LINES[SHOWN[FAMILIES.get(key, key)][0] - 1] == f"# {POOL.options[key].meaning}"


def test_it_loads_without_faults(tmp_path: Path) -> None:
    """As it stands, and with every line in force."""
    assert sorted(load(Sources(str(SHIPPED)), Machine()).others) == ["pool:numbers"]
    copy = tmp_path / "etc" / "pools.ini"
    copy.parent.mkdir()
    text = re.sub(r"^#(?=[\w.]+ =)", "", SHIPPED.read_text(), flags=re.MULTILINE)
    copy.write_text(text)
    found = load(Sources(str(copy))).others["pool:numbers"]
    assert (found.processes, found.targets, found.timeout) == (2, ("rpccluster.demo",), 60.0)
