"""The words for an exception, whatever it is."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpccluster.failure import error_text, message_of


class Silent(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Deadly(Exception):
    def __str__(self) -> str:
        raise SystemExit


class Odd(str):
    """A str that is not what it says."""

    def __getitem__(self, _: Any) -> str:
        raise RuntimeError("no parts")

    def encode(self, *_: Any) -> bytes:
        raise RuntimeError("no bytes")


class OddText(Exception):
    def __str__(self) -> str:
        return Odd("odd")


class Nameless(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise GeneratorExit


class Surrogate(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]
        return "\ud800" * 1000


class NamelessError(Exception, metaclass=Nameless): ...


class SurrogateError(Exception, metaclass=Surrogate): ...


class NotText(Exception):
    def __str__(self) -> str:
        return 5  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("boom"), "ValueError: boom"),
        (KeyError("x"), "KeyError: 'x'"),
        (ValueError(), "ValueError: "),
        (SystemExit(3), "SystemExit: 3"),
        (Silent(), "Silent: (its message cannot be had)"),
        (Deadly(), "Deadly: (its message cannot be had)"),
        (NotText(), "NotText: (its message cannot be had)"),
        (ValueError("a\nb"), "ValueError: a\nb"),
        (ValueError("Grüße \udcff"), "ValueError: Grüße \udcff"),
        (ValueError("\ud800 lone"), "ValueError: \\ud800 lone"),
        (OddText(), "OddText: odd"),
        (type("Long" * 1000, (Exception,), {})("x"), "Long" * 50 + ": x"),
        (ValueError("x" * 20_000), "ValueError: " + "x" * 10_000),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_exception_becomes_its_class_and_message(error: BaseException, text: str) -> None:
    """Whatever its own `__str__` does; and what cannot be sent is escaped."""
    assert error_text(error) == text


@given(st.text(st.characters() | st.characters(categories=["Cs"])))
def test_every_error_can_be_packed(message: str) -> None:
    """A lone surrogate in it must not cost the worker a greenlet."""
    packer = msgpack.Packer(unicode_errors="surrogateescape")
    packer.pack(error_text(ValueError(message)))


def test_a_class_makes_of_its_name_what_it_likes() -> None:
    """A metaclass may raise there, or tell what cannot be sent."""
    assert error_text(NamelessError("x")) == "(an exception whose name cannot be had): x"
    assert error_text(SurrogateError("x")) == "\\ud800" * 200 + ": x"


def test_the_text_is_a_plain_str() -> None:
    """Whatever it was made from."""
    assert type(message_of(OddText())) is str
