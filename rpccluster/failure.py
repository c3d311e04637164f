"""Describes any exception, even one whose ``__str__`` raises or returns something strange.

Never raises. Texts are bounded and can be packed. Imports nothing of the package; any process.
"""

from __future__ import annotations

__all__ = ["error_text", "message_of", "name_of"]

_LONGEST_NAME = 200
_LONGEST_MESSAGE = 10_000


def error_text(error: BaseException) -> str:
    """Return ``"ExceptionClass: message"``, both cut to a sensible length."""
    return f"{name_of(error)}: {message_of(error)}"


def message_of(error: BaseException) -> str:
    """Return the message alone, and escape characters that no str on the wire can hold."""
    try:
        return _cut(str(error), _LONGEST_MESSAGE)
    except BaseException:
        return "(its message cannot be had)"


def name_of(error: BaseException) -> str:
    """Return the name of the exception's class."""
    try:
        return _cut(type(error).__name__, _LONGEST_NAME)
    except BaseException:  # a metaclass may return anything as its name
        return "(an exception whose name cannot be had)"


def _cut(text: str, longest: int) -> str:
    """Return at most ``longest`` characters of ``text``, as a plain str."""
    cut = str.__getitem__(text, slice(longest))
    try:
        cut.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return cut.encode("utf-8", "backslashreplace").decode()
    return cut
