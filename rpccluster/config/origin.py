"""The place where a value of the configuration was written, and the fault that it has there.

Owns the wording of a fault's place; the finder of a fault words the problem. Any process.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BUILT_IN", "COMMAND_LINE", "ENVIRONMENT", "Fault", "Origin", "Setting", "file_origin", "flag_origin"]


@dataclass(frozen=True, order=True)
class Origin:
    """A place where an option gets its value. Places sort as they override: file, environment, flags."""

    rank: int
    line: int
    text: str

    def __str__(self) -> str:
        return self.text


BUILT_IN = Origin(0, 0, "default")
ENVIRONMENT = Origin(2, 0, "RPCCLUSTER_CMD_ARGS")
COMMAND_LINE = Origin(3, 0, "command line")


def file_origin(path: str, line: int) -> Origin:
    """Return the place of line ``line`` (from 1) in the configuration file; ``path`` is as the user wrote it."""
    return Origin(1, line, f"{path}:{line}")


def flag_origin(flag: str) -> Origin:
    """Return the place of a flag of the command line, such as ``--workers``."""
    return Origin(3, 0, f"flag {flag}")


@dataclass(frozen=True)
class Setting:
    """The text of a value that a source gives to an option; ``section`` is the header that the option stands under."""

    section: str
    key: str
    text: str
    origin: Origin


@dataclass(frozen=True)
class Fault:
    """One mistake in the configuration. ``problem`` says what was found and what was expected.

    ``section`` is the header that ``key`` stands under; None where that is no section's option.
    """

    origin: Origin
    key: str
    problem: str
    section: str | None = None

    def __str__(self) -> str:
        return f"{self.origin}: {self.key}: {self.problem}"
