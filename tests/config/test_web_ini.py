"""etc/web.ini: that it shows every option of the metrics and the page at its default, and loads as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rpccluster.config import Machine, Sources, load
from rpccluster.config.sections.web import METRICS, WEB

CHECKOUT = Path(__file__).resolve().parents[2]
SHIPPED = CHECKOUT / "etc" / "web.ini"
LINES = SHIPPED.read_text(encoding="utf-8").splitlines()
OPTION_LINE = re.compile(r"(#?)([\w.]+) =(.*)")
HEADERS = {"metrics": METRICS, "web": WEB}
KEYS = [(header, key) for header, section in HEADERS.items() for key in section.options]


def shown(header: str) -> dict[str, tuple[str, re.Match[str]]]:
    """The options of a section, each with the line above it."""
    lines = LINES[LINES.index(f"[{header}]") + 1 :]
    end = next((number for number, line in enumerate(lines) if line.startswith("[")), len(lines))
    found = ((before.strip(), OPTION_LINE.fullmatch(line)) for before, line in zip(lines, lines[1:end]))
    return {match[2]: (before, match) for before, match in found if match}


@pytest.mark.parametrize("header", HEADERS)
def test_every_option_appears(header: str) -> None:
    """Every key and no other; what must be given is given."""
    assert list(shown(header)) == list(HEADERS[header].options)
    assert {key for key, (_, match) in shown(header).items() if not match[1]} == {"bind"}


@pytest.mark.parametrize(("header", "key"), [each for each in KEYS if each[1] != "bind"])
def test_what_is_commented_out_is_the_default(header: str, key: str) -> None:
    """Removing the mark changes nothing."""
    assert shown(header)[key][1][3].strip() == HEADERS[header].options[key].default_text


@pytest.mark.parametrize(("header", "key"), KEYS)
def test_every_option_is_explained(header: str, key: str) -> None:
    """Its meaning stands above it, as the schema words it."""
    assert shown(header)[key][0] == f"# {HEADERS[header].options[key].meaning}"


def test_it_loads_without_faults() -> None:
    """As it stands."""
    assert sorted(load(Sources(str(SHIPPED)), Machine()).others) == ["metrics", "web"]
