"""The lines of an INI text: that it is read as configparser reads it, with the right line numbers."""

from __future__ import annotations

from configparser import Error, RawConfigParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rpccluster.config.files.lines import Entry, Header, Stray, scan

TEXT = """\
# a comment

[DEFAULT]
run: /run
[cluster]
bind = a,
  # a comment among continuation lines
    b,

    c
Backlog=5
; another
no_delimiter
empty =
"""


def test_items_carry_their_line_section_and_text() -> None:
    """Comments, blank and continuation lines never shift the line a fault names."""
    assert scan(TEXT) == [
        Header(3, "DEFAULT"),
        Entry(4, "DEFAULT", "run", "/run"),
        Header(5, "cluster"),
        Entry(6, "cluster", "bind", "a,\nb,\nc"),
        Entry(11, "cluster", "backlog", "5"),
        Stray(13, "no_delimiter"),
        Entry(14, "cluster", "empty", ""),
    ]


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_line_endings_of_every_system_count_once(ending: str) -> None:
    """A file from another system has the same lines."""
    assert scan(TEXT.replace("\n", ending)) == scan(TEXT)


@pytest.mark.parametrize("separator", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
def test_only_line_endings_end_a_line(separator: str) -> None:
    """What an editor does not count as a line is none."""
    assert [item.line for item in scan(f"[a]\nk = x{separator}y\nl = 1\n")] == [1, 2, 3]


@pytest.mark.parametrize(
    ("text", "item"),
    [
        ("k = a = b : c", Entry(1, None, "k", "a = b : c")),
        ("k : a = b", Entry(1, None, "k", "a = b")),
        ("k=", Entry(1, None, "k", "")),
        ("k = # no comment", Entry(1, None, "k", "# no comment")),
        ("two words = x", Entry(1, None, "two words", "x")),
        ("= x", Stray(1, "= x")),
        ("word", Stray(1, "word")),
        ("[open", Stray(1, "[open")),
        ("[a] # no comment", Stray(1, "[a] # no comment")),
        ("[]", Stray(1, "[]")),
        ("  [a]", Header(1, "a")),
    ],
)
def test_single_lines(text: str, item: object) -> None:
    """What counts as a header and an entry; everything else is left for a fault."""
    assert scan(text) == [item]


def test_an_indented_first_entry_continues_nothing() -> None:
    """Below a header, indentation alone means nothing."""
    assert scan("[a]\n   k = 1\n   l = 2\n     3\n") == [
        Header(1, "a"),
        Entry(2, "a", "k", "1"),
        Entry(3, "a", "l", "2\n3"),
    ]


LINE = st.one_of(
    st.sampled_from(["[a]", "[b]", "  [a]", "", "   ", "# c", "   ; c", "stray"]),
    st.builds(
        "{}{}{}{}".format,
        st.sampled_from(["", "", " ", "    "]),
        st.sampled_from(["k", "l", "M m", "n.o"]),
        st.sampled_from(["=", " = ", ":", " :"]),
        st.text(alphabet="ab =:#;[]%\t", max_size=6),
    ),
)


@settings(max_examples=300)
@given(st.lists(LINE, max_size=12))
def test_it_reads_what_configparser_reads(lines: list[str]) -> None:
    """Where configparser finds a text faultless, the same sections, keys and values are found here."""
    text = "\n".join(lines)
    parser = RawConfigParser(default_section="")
    try:
        parser.read_string(text)
    except Error:
        return
    expected = {name: dict(parser.items(name)) for name in parser.sections()}
    found: dict[str | None, dict[str, str]] = {}
    for item in scan(text):
        assert not isinstance(item, Stray)
        section = found.setdefault(item.name if isinstance(item, Header) else item.section, {})
        if isinstance(item, Entry):
            section[item.key] = item.text
    assert found == {name: {key: _unspaced(value) for key, value in items.items()} for name, items in expected.items()}


def _unspaced(value: str) -> str:
    """Without the blank lines inside a value, which mean nothing to any option."""
    first, *rest = value.split("\n")
    return "\n".join([first, *(line for line in rest if line.strip())])
