"""Declared settings: texts become values by their kinds, and each fault has its place."""

from __future__ import annotations

from typing import Any

import pytest

from rpccluster.config.declared import converted, declaration_of
from rpccluster.errors import SettingsRefused
from rpccluster.live_settings import Given, Setting

DECLARED = {
    "open": Setting(bool, True),
    "number": Setting(int, 3),
    "Price": Setting(float, 1),
    "name": Setting(str, "Anna"),
    "staff": Setting(list, ["Anna"]),
    "bits": Setting(lambda text: int(text, 2), 0),
}


def refusal(**texts: str) -> list[str]:
    """The lines of the refusal."""
    with pytest.raises(SettingsRefused) as raised:
        converted(Given(1, texts, dict.fromkeys(texts, "x.ini:3")), DECLARED)
    return str(raised.value).splitlines()


def test_each_kind_reads_its_texts() -> None:
    """What the file lacks stands at its default; a list is a fresh one each time."""
    texts = {"open": "no", "number": "-7", "Price": "2.5", "name": "", "staff": "a, b", "bits": "101"}
    found = converted(Given(4, texts, {}), DECLARED)
    assert found.number == 4
    assert dict(found.values) == {
        "open": False, "number": -7, "Price": 2.5, "name": "", "staff": ["a", "b"], "bits": 5,
    }  # fmt: skip
    defaults = converted(Given(1, {}, {}), DECLARED)
    assert dict(defaults.values) == {
        "open": True, "number": 3, "Price": 1.0, "name": "Anna", "staff": ["Anna"], "bits": 0,
    }  # fmt: skip
    assert defaults.values["staff"] is not DECLARED["staff"].default


def test_without_a_declaration_all_are_strings() -> None:
    """Under any keys."""
    assert dict(converted(Given(1, {"a b": "1"}, {}), None).values) == {"a b": "1"}


def test_all_faults_are_told_at_once() -> None:
    """With place, key, and what was expected."""
    assert refusal(number="1.5", Price="x", open="perhaps", bits="7", nam="x") == [
        "x.ini:3: number: found '1.5', expected a whole number",
        "x.ini:3: Price: found 'x', expected a number",
        "x.ini:3: open: found 'perhaps', expected true or false",
        "x.ini:3: bits: found '7', which the service refuses: ValueError: invalid literal for int() with base 2: '7'",
        "x.ini:3: nam: found an unknown setting, expected one that the service declares; did you mean name?",
    ]


@pytest.mark.parametrize("settings", [None, {}, {"a": 1}, [], lambda self: 1])
def test_another_attribute_of_that_name_declares_nothing(settings: Any) -> None:
    """A service may have had one before there were settings."""
    assert declaration_of(type("Shop", (), {"settings": settings})) is None


def test_a_mixed_declaration_is_a_fault() -> None:
    """A value was forgotten to be wrapped."""
    with pytest.raises(SettingsRefused, match=r"settings\['b'\] is 1, expected an rpccluster.Setting"):
        declaration_of(type("Shop", (), {"settings": {"a": Setting(int, 1), "b": 1}}))


@pytest.mark.parametrize(
    ("kind", "default"), [(int, "1"), (bool, 1), (int, True), (list, ("a",)), (str, None), ("int", 1)]
)
def test_a_default_is_of_its_kind(kind: Any, default: Any) -> None:
    """Told where it is declared."""
    with pytest.raises(TypeError, match=r"found .*, expected"):
        Setting(kind, default)
