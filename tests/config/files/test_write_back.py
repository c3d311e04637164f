"""A value that is put into a file: its bytes change, all others stay, and it reads back as itself."""

from __future__ import annotations

import codecs
import io
import os
from itertools import chain

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rpccluster.config.files.ini import parse_ini
from rpccluster.config.files.write_back import with_value
from rpccluster.config.origin import File
from rpccluster.errors import NotWritten

EXAMPLES = 10_000 if os.environ.get("RPCCLUSTER_FULL_SCALE") else 300
FIRST = File("/etc/x.ini", "x.ini")
INCLUDED = File("/etc/y.ini", "y.ini", 1)

TEXT = """\
# the cluster
[cluster]
service = demo:Demo   ; no comment
bind : tcp://127.0.0.1:1,
  # the second one
    tcp://127.0.0.1:2

[settings]
  price=1.5
  Name :   Anna\t
; the last word
"""


def put(text: str, key: str, value: str, section: str = "settings", file: File = FIRST) -> str:
    """The text afterwards."""
    return with_value(text.encode(), file, section, key, value).decode()


def refusal(text: str, key: str, value: str, section: str = "settings", file: File = FIRST) -> str:
    """Why there is none."""
    with pytest.raises(NotWritten) as raised:
        put(text, key, value, section, file)
    return str(raised.value)


@pytest.mark.parametrize(
    ("section", "key", "value", "old", "new"),
    [
        ("settings", "price", "2", "price=1.5", "price=2"),
        ("settings", "price", "50%", "price=1.5", "price=50%%"),
        ("settings", "price", "", "price=1.5", "price="),
        ("settings", "price", "a\nb", "price=1.5\n", "price=a\n      b\n"),
        ("settings", "Name", "Berta = :", "Anna\t", "Berta = :\t"),
        ("settings", "name", "Berta", "Anna\t\n", "Anna\t\n  name :   Berta\n"),
        ("cluster", "bind", "unix:///x", "tcp://127.0.0.1:1,", "unix:///x"),
        ("cluster", "bind", "a:1, b:2\nc:3\nd:4", "tcp://127.0.0.1:1,", "a:1, b:2"),
        ("cluster", "call_timeout", "2", "    tcp://127.0.0.1:2\n", "    tcp://127.0.0.1:2\ncall_timeout : 2\n"),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_one_value_changes(section: str, key: str, value: str, old: str, new: str, end: str) -> None:
    """Whatever its delimiter, its spacing and its place; the line ends are the file's."""
    expected = TEXT.replace(old, new)
    if key == "bind":
        expected = expected.replace("    tcp://127.0.0.1:2\n", "" if "\n" not in value else "    c:3\n    d:4\n")
    assert put(TEXT.replace("\n", end), key, value, section) == expected.replace("\n", end)


def test_a_file_without_a_last_line_end_has_none_afterwards() -> None:
    """Wherever the new text stands."""
    assert put("[cluster]\nservice = a:b\n[settings]\nk = 1", "k", "2").endswith("[settings]\nk = 2")
    assert put("[cluster]\nservice = a:b\n[settings]\nk = 1", "l", "2").endswith("[settings]\nk = 1\nl = 2")
    assert put("[cluster]\nservice = a:b\n[settings]\nk = 1\n  2", "k", "3").endswith("[settings]\nk = 3")
    assert put("[cluster]\nservice = a:b", "k", "1") == "[cluster]\nservice = a:b\n\n[settings]\nk = 1"


def test_an_absent_section_comes_last() -> None:
    """In the first file; to which included file it would belong nobody can know."""
    assert put("[cluster]\nservice = a:b\n", "k", "1") == "[cluster]\nservice = a:b\n\n[settings]\nk = 1\n"
    assert put("[cluster]\r\nservice = a:b\r\n\r\n", "k", "1").endswith("a:b\r\n\r\n[settings]\r\nk = 1\r\n")
    text = refusal("[plugin:x]\nrun = a:b\n", "k", "1", file=INCLUDED)
    assert text == "y.ini:1: k: found no [settings] in this file, expected it: it could belong to any file"
    assert put("[settings]\n", "k", "1", file=INCLUDED) == "[settings]\nk = 1\n"


def test_a_byte_order_mark_stays() -> None:
    """Windows' editors write it."""
    data = codecs.BOM_UTF8 + b"[cluster]\r\nservice = a:b\r\n"
    assert with_value(data, FIRST, "cluster", "service", "c:d") == data.replace(b"a:b", b"c:d")


def test_a_section_overrides_what_all_sections_share() -> None:
    """Another section that has the value of [DEFAULT], too, keeps it."""
    text = "[DEFAULT]\ntimeout = 5\n[cluster]\nservice = a:b\n[plugin:x]\nrun = a:b\n"
    assert put(text, "timeout", "7", "cluster") == text.replace("service = a:b\n", "service = a:b\ntimeout = 7\n")


@pytest.mark.parametrize(
    ("text", "key", "value", "place", "problem"),
    [
        ("[DEFAULT]\na = 1\n[settings]\nk = %(a)s\n", "k", "2", 6, "which takes a value from elsewhere"),
        ("[settings]\nk = 1\nk = 2\n", "k", "3", 5, "found it again"),
        ("[settings]\nk = 1\n[settings]\n", "k", "3", 5, "found it again"),
        ("[settings]\nk = 1\nl = %(k)s\n", "k", "3", 4, "found it in the value of l in [settings]"),
        ("[settings]\nk = 1\n", "k", " 3", 4, "reads back as itself"),
        ("[settings]\nk = 1\n", "k", "3 ", 4, "reads back as itself"),
        ("[settings]\nk = 1\n", "k", "3\n\n4", 4, "reads back as itself"),
        ("[settings]\nk = 1\n", "k", "3\n# 4", 4, "reads back as itself"),
        ("[settings]\nk = 1\n", "k", "3\r4", 4, "reads back as itself"),
        ("[settings]\nk = 1\n", "a=b", "3", 4, "reads back as itself"),
        ("[settings]\nk = 1\n", "# a", "3", 4, "reads back as itself"),
        ("[settings]\nk = 1\n", "a\n[b]\nc", "3", 4, "expected"),
        ("[settings]\nk = 1\n", "k", "\ud800", 1, "expected UTF-8 text"),
    ],
)
def test_what_cannot_be_written_is_refused_with_its_place(
    text: str, key: str, value: str, place: int, problem: str
) -> None:
    """The caller has nothing to write then."""
    found = refusal("[cluster]\nservice = a:b\n" + text, key, value)
    assert found.startswith(f"x.ini:{place}: ")
    assert problem in found


COMMENT = st.sampled_from(["# c", "   ; c = d", "", "  ", "\t"])
VALUE = st.text(alphabet="ab1 =:#;[]%äß\t/,", max_size=10).map(lambda text: text.replace("%", "%%"))
DELIMITER = st.sampled_from(["=", " = ", ":", " :", ":  ", "\t=\t"])
KEYS = st.sampled_from(["price", "Price", "two words", "x.y", "Z"])
ENTRY = st.builds(
    lambda indent, key, delimiter, value, more: [
        f"{indent}{key}{delimiter}{value}",
        *(comment if comment is not None else f"{indent}  {text}" for comment, text in more),
    ],
    st.sampled_from(["", "", "", " ", "  "]),
    KEYS,
    DELIMITER,
    st.one_of(VALUE, st.just("%(base)s"), st.just("%(price)s x")),
    st.lists(st.tuples(st.one_of(st.none(), COMMENT), VALUE), max_size=3),
)
FILE = st.builds(
    lambda head, entries, has_header, tail, end, last, mark: (
        (codecs.BOM_UTF8 if mark else b"")
        + (
            end.join([*head, *(["[settings]", *chain(*entries)] if has_header else []), *tail]) + (end if last else "")
        ).encode()
    ),
    st.lists(COMMENT, max_size=2).map(lambda top: ["[DEFAULT]", "base = 7", *top, "[cluster]", "service : a:b"]),
    st.lists(ENTRY, max_size=4),
    st.booleans(),
    st.sampled_from([[], [""], ["", "[plugin:x]", "run=a:b", "# end"], ["   # end"], ["[settings]"]]),
    st.sampled_from(["\n", "\n", "\r\n", "\r"]),
    st.booleans(),
    st.booleans(),
)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(FILE, KEYS, st.one_of(st.text(alphabet="ab1 =:#;[]%äß,", max_size=8), st.text(max_size=8)))
def test_every_other_byte_stays(data: bytes, key: str, value: str) -> None:
    """Of any file: what is read back is what was set; every other value, comment and line is as before."""
    before = parse_ini(data.decode("utf-8-sig"), FIRST)
    try:
        new = with_value(data, FIRST, "settings", key, value)
    except NotWritten as error:
        text = str(error)
        is_odd = value != "\n".join(line.strip() for line in value.split("\n")) or not value.isprintable()
        may_refuse = before.faults or is_odd or "takes a value" in text or "in the value of" in text
        assert may_refuse, text
        return
    assert not before.faults
    after = parse_ini(new.decode("utf-8-sig"), FIRST)
    assert not after.faults
    old_values = {(each.section, each.key): each.text for each in before.settings}
    new_values = {(each.section, each.key): each.text for each in after.settings}
    assert new_values == {**old_values, ("settings", key): value}
    _check_bytes(data, new, ("settings", key) in old_values)


def _check_bytes(old: bytes, new: bytes, was_there: bool) -> None:
    """Nothing but a value's lines stands between the head and the tail that both have."""
    head = _common(old, new)
    tail = _common(old[head:][::-1], new[head:][::-1])
    assert was_there or head + tail == len(old)  # else it was added only
    assert _comments(new) == _comments(old)
    assert new.endswith((b"\n", b"\r")) == old.endswith((b"\n", b"\r"))


def _common(one: bytes, other: bytes) -> int:
    """Return how many bytes both begin with."""
    return next(
        (number for number, pair in enumerate(zip(one, other)) if pair[0] != pair[1]), min(len(one), len(other))
    )


def _comments(data: bytes) -> list[str]:
    lines = io.StringIO(data.decode("utf-8-sig"), newline="")
    return [line.rstrip("\r\n") for line in lines if line.strip()[:1] in ("", "#", ";")]
