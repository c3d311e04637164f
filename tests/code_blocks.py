"""Finds every code block of the documents. Owns the rules by which a block says what it is; runs nothing.

The info string, behind the three backticks, begins with a language:

- `sh`, `python` and `ini` are run or checked. `not-run: REASON` behind the language is the only way out.
- `text` is a drawing or what a program prints.
- any other language is that of a file which a command of the same document needs, so the block must be named.

A block is named, and becomes that file, if the line before it ends with the file's name in backticks and a colon or a
full stop. In `sh` and `python` a comment `# prints X` says what a line prints.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["RUN", "Block", "code_blocks", "indented_lines"]

RUN = {"sh", "python", "ini"}
_FENCE = re.compile(r"^ *```(.*)$")
_NAME = re.compile(r"`([\w.-]+\.\w+)`(?:,[^`]*)?[:.]$")


@dataclass(frozen=True)
class Block:
    """One fenced block: where its text begins, its info string in two parts, its text, and its name if it is a file."""

    document: Path
    line: int
    language: str
    note: str
    text: str
    name: str | None

    @property
    def is_run(self) -> bool:
        """Whether a test runs or checks it."""
        return self.language in RUN and not self.note.startswith("not-run")

    def lines(self) -> list[str]:
        """The lines of the text; a backslash at the end of one has joined it to the next."""
        return self.text.replace("\\\n", "").splitlines()

    def __str__(self) -> str:
        return f"{self.document.name}:{self.line}"


def code_blocks(document: Path) -> Iterator[Block]:
    """The fenced blocks of a document, in their order."""
    fence, told, before = None, "", ""
    text: list[str] = []
    for number, line in enumerate(document.read_text().splitlines(), 1):
        found = _FENCE.match(line)
        if fence is None and found:
            fence, told, text = number, found[1], []
        elif fence is not None and found:
            language, _, note = told.partition(" ")
            name = _NAME.search(before)
            yield Block(document, fence + 1, language, note, "".join(text), name and name[1])
            fence, before = None, ""
        elif fence is not None:
            text.append(line + "\n")
        else:
            before = line.rstrip() or before
    assert fence is None, f"{document.name}:{fence}: a code block without an end"


def indented_lines(document: Path) -> Iterator[str]:
    """Lines outside fences that Markdown takes for code because they are indented: after a blank line, in no list."""
    is_fenced, before, in_list = False, "", False
    for number, line in enumerate(document.read_text().splitlines(), 1):
        is_fenced ^= bool(_FENCE.match(line))
        in_list = bool(re.match(r" *([-*]|\d+\.) ", line)) or (in_list and (not line or line.startswith(" ")))
        if line.startswith("    ") and not (before or is_fenced or in_list):
            yield f"{document.name}:{number}"
        before = line
