"""Splits what a program writes into lines that are safe for the log. Pure: bytes in, lines out.

A program may write anything: binary, escape sequences of a terminal, a line of 100 MB. So a line is cut at `LONGEST`
bytes, as soon as so many have come, and the rest of it is dropped: no more than that is ever kept.
"""

from __future__ import annotations

import codecs

from rpccluster.log.lines import escaped

__all__ = ["CUT", "LONGEST", "LineSplitter"]

LONGEST = 16_384  # bytes of a line
CUT = "… (cut)"  # ends a line that was longer

_decoder = codecs.getincrementaldecoder("utf-8")


class LineSplitter:
    """The lines of one program's output, which comes in pieces of any size."""

    def __init__(self) -> None:
        self._begun = b""  # the line that has not ended
        self._is_cut = False  # it was longer, and all until its end is dropped

    def feed(self, data: bytes) -> list[str]:
        """Take the next piece of output. Returns the lines that it completes, or that have grown too long."""
        if self._is_cut:
            _, end, data = data.partition(b"\n")
            if not end:
                return []
            self._is_cut = False
        *ended, begun = (self._begun + data).split(b"\n")
        lines = [_line(each) for each in ended]
        self._begun = begun
        if len(begun) > LONGEST:
            self._is_cut = True
            lines += self.finish()
        return lines

    def finish(self) -> list[str]:
        """Return the line that has no end, if there is one."""
        begun, self._begun = self._begun, b""
        return [_line(begun)] if begun else []


def _line(data: bytes) -> str:
    if len(data) > LONGEST:  # a character that is cut in two is left out
        text, mark = _decoder("backslashreplace").decode(data[:LONGEST]), CUT
    else:
        text, mark = (data[:-1] if data.endswith(b"\r") else data).decode("utf-8", "backslashreplace"), ""
    return escaped(text, len(text), keep="\t") + mark
