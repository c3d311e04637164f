"""What can be told of an exception, whatever it is: its own ``__str__`` may raise, or return anything.

Never raises. Texts are bounded and fit to be packed. Imports nothing of the package; any process.
"""

from __future__ import annotations

__all__ = ["error_text", "message_of"]

_LONGEST_NAME = 200
_LONGEST_MESSAGE = 10_000


def error_text(error: BaseException) -> str:
    """``"ExceptionClass: message"``, both cut to a sensible length."""
    return f"{_name_of(error)}: {message_of(error)}"


def message_of(error: BaseException) -> str:
    """The message alone; characters that no str on the wire can hold are escaped."""
    try:
        return _cut(str(error), _LONGEST_MESSAGE)
    except BaseException:
        return "(its message cannot be had)"


def _name_of(error: BaseException) -> str:
    try:
        return _cut(type(error).__name__, _LONGEST_NAME)
    except BaseException:  # a metaclass may make of it what it likes
        return "(an exception whose name cannot be had)"


def _cut(text: str, longest: int) -> str:
    """At most ``longest`` characters of it, as a plain str."""
    cut = str.__getitem__(text, slice(longest))
    try:
        cut.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return cut.encode("utf-8", "backslashreplace").decode()
    return cut
