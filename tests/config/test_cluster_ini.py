"""etc/cluster.ini: that it shows every option at its default, and runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rpccluster.config import OPTIONS, Machine, Options, Sources, load

CHECKOUT = Path(__file__).resolve().parents[2]
SHIPPED = CHECKOUT / "etc" / "cluster.ini"
LINES = SHIPPED.read_text(encoding="utf-8").splitlines()
OPTION_LINE = re.compile(r"(#?)(\w+) =(.*)")
SHOWN = [(number, match) for number, line in enumerate(LINES) if (match := OPTION_LINE.fullmatch(line))]
ACTIVE = {"service", "bind", "pidfile", "control_socket", "log_file"}


def shown(key: str) -> tuple[int, str]:
    """Line index and value of an option."""
    ((number, match),) = [(number, match) for number, match in SHOWN if match[2] == key]
    return number, match[3].strip()


def test_every_option_appears_once() -> None:
    """It shows every key and no other."""
    assert sorted(match[2] for _, match in SHOWN) == sorted(OPTIONS)
    assert {match[2] for _, match in SHOWN if not match[1]} == ACTIVE


@pytest.mark.parametrize("key", sorted(set(OPTIONS) - ACTIVE))
def test_what_is_commented_out_is_the_default(key: str) -> None:
    """Removing the mark changes nothing; a default that is computed is explained."""
    number, value = shown(key)
    option = OPTIONS[key]
    if option.compute is None:
        assert value == option.default_text
    else:
        assert LINES[number - 1] == f"# default: {option.default_text}"
        option.type.parse(value)


@pytest.mark.parametrize("key", sorted(OPTIONS))
def test_every_option_is_explained(key: str) -> None:
    """Its meaning stands above it, as the schema words it."""
    assert f"# {OPTIONS[key].meaning}" in LINES[shown(key)[0] - 2 : shown(key)[0]]


def test_it_loads_without_faults() -> None:
    """It is what the program is tried out with; its files are in the checkout's run folder."""
    options = load(Sources(str(SHIPPED)), Machine()).options
    run = CHECKOUT / "run"
    assert options == Options(
        service="rpccluster.demo:Demo",
        pidfile=str(run / "cluster.pid"),
        control_socket=str(run / "cluster.sock"),
        log_file=str(run / "cluster.log"),
    )


def test_it_still_loads_with_every_line_in_force(tmp_path: Path) -> None:
    """Whoever removes all the marks gets the same cluster."""
    copy = tmp_path / "etc" / "cluster.ini"
    copy.parent.mkdir()
    copy.write_text(re.sub(r"^#(?=\w+ =)", "", "\n".join(LINES), flags=re.MULTILINE))
    options = load(Sources(str(copy))).options
    assert options == Options(
        service="rpccluster.demo:Demo",
        number_workers=int(shown("number_workers")[1]),
        pidfile=str(tmp_path / "run" / "cluster.pid"),
        control_socket=str(tmp_path / "run" / "cluster.sock"),
        log_file=str(tmp_path / "run" / "cluster.log"),
    )
