"""Where a value of the configuration was written, and what is wrong with it there.

Owns the wording of a fault's place; what is found and expected is said by whoever finds it. Any process.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BUILT_IN", "COMMAND_LINE", "ENVIRONMENT", "Fault", "Origin", "Setting", "file_origin", "flag_origin"]


@dataclass(frozen=True, order=True)
class Origin:
    """A place where an option can get its value. Places sort as they override: file, environment, flags."""

    rank: int
    line: int
    text: str

    def __str__(self) -> str:
        return self.text


BUILT_IN = Origin(0, 0, "default")
ENVIRONMENT = Origin(2, 0, "RPCCLUSTER_CMD_ARGS")
COMMAND_LINE = Origin(3, 0, "command line")


def file_origin(path: str, line: int) -> Origin:
    """Line ``line`` (from 1) of the configuration file, which is shown as the user wrote its path."""
    return Origin(1, line, f"{path}:{line}")


def flag_origin(flag: str) -> Origin:
    """A flag of the command line, such as ``--workers``."""
    return Origin(3, 0, f"flag {flag}")


@dataclass(frozen=True)
class Setting:
    """One value, still as text, for one option."""

    key: str
    text: str
    origin: Origin


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong. ``problem`` says what was found and what was expected."""

    origin: Origin
    key: str
    problem: str

    def __str__(self) -> str:
        return f"{self.origin}: {self.key}: {self.problem}"
