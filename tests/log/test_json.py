"""Lines of JSON: one object each, whatever is logged."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from rpccluster.log.lines import (
    access_line,
    formatter,
    lost_lines,
    output_formatter,
    output_line,
    own_record,
    set_format,
)


@pytest.fixture(autouse=True)
def _json() -> Iterator[None]:
    set_format("json")
    yield
    set_format("text")


def read(line: str) -> dict[str, Any]:
    """The object of a line, without its time and its pid, which are right."""
    found: dict[str, Any] = json.loads(line)
    assert datetime.fromisoformat(found.pop("time")).tzinfo is not None
    assert found.pop("pid") == os.getpid()
    return found


def record(text: str, *arguments: object, name: str = "shop", error: BaseException | None = None) -> logging.LogRecord:
    """A record as a service makes it."""
    seen = (type(error), error, error.__traceback__) if error else None
    return logging.LogRecord(name, logging.INFO, "file", 7, text, arguments, seen)


def test_a_line_of_the_service_names_its_logger() -> None:
    """And its message has its arguments."""
    assert read(formatter.format(record("%d of %s", 3, "four"))) == {
        "level": "INFO",
        "message": "3 of four",
        "logger": "shop",
    }


def test_a_line_of_ours_names_none() -> None:
    """All others have one."""
    assert read(formatter.format(own_record(logging.WARNING, "full"))) == {"level": "WARNING", "message": "full"}


@pytest.mark.parametrize("text", ["two\nlines", '"quoted" \\', "\ud800", "\x1b[31m", "\x85\u2028", "Ü"])
def test_any_text_is_one_line_of_ascii(text: str) -> None:
    """And is the same when it is read."""
    line = formatter.format(record("%s", text))
    assert line.isascii() and line.isprintable()
    assert read(line)["message"] == text


def test_an_exception_is_a_field() -> None:
    """With its whole traceback."""
    try:
        raise ValueError("boom")
    except ValueError as error:
        found = read(formatter.format(record("failed", error=error)))
    assert found["exception"].startswith("Traceback (most recent call last):\n")
    assert found["exception"].endswith("ValueError: boom")


def test_a_call_has_numbers() -> None:
    """Milliseconds to three places, for programs that add them up."""
    assert read(access_line("127.0.0.1:5", "echo", 1.23456, "ok")) == {
        "peer": "127.0.0.1:5",
        "method": "echo",
        "milliseconds": 1.235,
        "outcome": "ok",
    }


def test_an_output_names_its_plugin() -> None:
    """What a plugin prints is no JSON of its own."""
    assert read(output_line(os.getpid(), "dict", "[INFO] up")) == {"plugin": "dict", "message": "[INFO] up"}


def test_lost_lines_are_told_alike() -> None:
    """As any other line is."""
    assert read(lost_lines(3, "its reader takes none").decode())["message"].startswith("3 lines of the log were lost")


def test_a_plugin_writes_text_to_its_master() -> None:
    """The master makes the object."""
    assert output_formatter.format(record("up")) == "[INFO] up"
