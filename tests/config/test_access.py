"""The section [access]: its keys, its rules, and every fault of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rpccluster.config.access import Rule, rules_of, text_of
from rpccluster.config.changes.changing import with_values
from rpccluster.config.checks import Machine
from rpccluster.config.configuration import Configuration, Sources, load
from rpccluster.config.files.write_back import with_value
from rpccluster.config.origin import File
from rpccluster.errors import ConfigError


def loaded(path: Path, text: str) -> Configuration:
    """Read a file with this section."""
    path.write_text(f"[cluster]\nservice = a:b\n[access]\n{text}")
    return load(Sources(str(path)), Machine())


def test_keys_are_identities_and_keep_their_case(tmp_path: Path) -> None:
    """Only = divides key and value."""
    text = "key:Web = call find*, call order 20/s\nuid:0=call *\ncert:Shop Ltd: one = call a:b 0.5/s\n* = call x\n"
    found = loaded(tmp_path / "c.ini", text)
    assert json.loads(found.options.access) == {
        "key:Web": "call find*, call order 20/s",
        "uid:0": "call *",
        "cert:Shop Ltd: one": "call a:b 0.5/s",
        "*": "call x",
    }
    assert found.text("key:Web", "access") == "call find*, call order 20/s"


def test_without_the_section_there_are_no_rules_and_an_empty_one_allows_nothing(tmp_path: Path) -> None:
    """Which is a difference."""
    assert loaded(tmp_path / "c.ini", "").options.access == "{}"
    (tmp_path / "d.ini").write_text("[cluster]\nservice = a:b\n")
    assert load(Sources(str(tmp_path / "d.ini")), Machine()).options.access == ""


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("web = call *", "found the identity 'web', expected key:NAME, uid:N, cert:NAME or *"),
        ("uid:root = call *", "found the identity 'uid:root'"),
        ("key:a = *", "found '*', expected rules separated by commas, each call PATTERN or call PATTERN RATE/s"),
        ("key:a = call x 0/s", "found 'call x 0/s'"),
        ("key:a = call x 5", "found 'call x 5'"),
        ("key:a = call x -5/s", "found 'call x -5/s'"),
        ("key:a = call x, ", "expected rules"),
        ("key:a =", "found nothing, expected rules"),
        ("key:a = " + ", ".join(f"call m{number} 1/s" for number in range(65)), "found 65 rates, expected at most 64"),
    ],
)
def test_a_faulty_rule_has_its_line(tmp_path: Path, line: str, problem: str) -> None:
    """What was found, and what was expected."""
    with pytest.raises(ConfigError) as raised:
        loaded(tmp_path / "c.ini", line + "\n")
    assert "c.ini:4" in str(raised.value) and problem in str(raised.value)


def test_a_rule_reads_as_it_is_written() -> None:
    """In both directions."""
    assert rules_of("call a*,call  b 1.5/s") == (Rule("a*"), Rule("b", 1.5))
    assert text_of(rules_of("call a*,call  b 1.50/s")) == "call a*, call b 1.5/s"


def test_a_command_may_set_a_rule(tmp_path: Path) -> None:
    """In the running configuration, and in the file, whose other bytes stay."""
    found = loaded(tmp_path / "c.ini", "key:a = call x\n")
    changed = with_values(found, {"access.key:b": "call y 3/s", "access.key:a": None}, Machine())
    assert json.loads(changed.options.access) == {"key:b": "call y 3/s"}
    file = File(str(tmp_path / "c.ini"), "c.ini", True)
    data = (tmp_path / "c.ini").read_bytes()
    assert with_value(data, file, "access", "key:a", "call z") == data.replace(b"call x", b"call z")
