"""The reader of the counters: sums over all rows of the file, and what living processes show. Runs in any process.

It waits for nobody, locks nothing and maps nothing. Each cell is read whole, and only grows. The count of a histogram
is the sum of its buckets, so the two always agree; its sum may lack the calls that end while it is read.
"""

from __future__ import annotations

import os
import struct
import sys
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from rpccluster import system
from rpccluster.metrics.layout import (
    BLOCK_BYTES,
    BLOCK_CELLS,
    BUCKETS,
    CELL_BYTES,
    CELLS_AT,
    FAILED,
    NAME_BYTES,
    OK,
    ROW_BYTES,
    WORD,
    Block,
    Outcome,
    OwnCell,
)

__all__ = ["Calls", "Histogram", "Reader", "Totals"]

LONG_BYTES = 32 * BLOCK_BYTES  # of a row, which takes longer to read

_NOTHING = (0,) * BLOCK_CELLS


class Histogram(NamedTuple):
    """Durations: how many ended in each bucket (not cumulated), and their sum in seconds."""

    buckets: Sequence[int]
    seconds: float

    @property
    def total(self) -> int:
        """The number of durations."""
        return sum(self.buckets)


class Calls(NamedTuple):
    """The calls of one method: their number by outcome, and the durations of those that have run."""

    outcomes: Mapping[str, int]
    durations: Histogram


@dataclass
class Totals:
    """What all processes of a cluster have counted since its start, and what the living ones show.

    ``blocks`` has the summed cells of each block by its kind and name, ``connections`` the open connections, and
    ``settings_versions`` the version of the settings of each group.
    """

    blocks: dict[tuple[Block, str], Sequence[int]] = field(default_factory=dict)
    connections: int = 0
    settings_versions: dict[str, int] = field(default_factory=dict)

    def of(self, kind: Block) -> dict[str, Sequence[int]]:
        """Return the cells of all blocks of one kind, by name, in order of their names."""
        return {name: self.blocks[kind, name] for found, name in sorted(self.blocks, key=_name) if found is kind}

    def methods(self) -> dict[str, Calls]:
        """Return the calls of each method, in order of their names."""
        return {name: _calls(cells) for name, cells in self.of(Block.METHOD).items()}

    def counts(self, kind: Block) -> dict[str, int]:
        """Return the first cell of all blocks of one kind, by name."""
        return {name: cells[0] for name, cells in self.of(kind).items()}

    @property
    def stalls(self) -> int:
        """How often a loop was held up."""
        return self._own[OwnCell.STALLS]

    @property
    def handovers(self) -> Histogram:
        """The moves of connections, each counted where the connection has arrived."""
        return _histogram(self._own, OwnCell.HANDOVERS)

    @property
    def queued(self) -> Histogram:
        """The time that calls have waited for their turn."""
        return _histogram(self._own, OwnCell.QUEUE)

    @property
    def _own(self) -> Sequence[int]:
        return self.blocks.get((Block.OWN, ""), _NOTHING)


class Reader:
    """Reads the file of the counters, as often as it is asked."""

    def __init__(self, descriptor: int) -> None:
        """``descriptor`` stays the caller's, and open."""
        self._descriptor = descriptor

    def read(self) -> Totals:
        """Return the totals as they are now. Raises OSError."""
        totals = Totals()
        for _ in self.fill(totals):
            pass
        return totals

    def fill(self, totals: Totals) -> Iterator[int]:
        """Read into ``totals``, which are empty, row by row; yield the weight of each: 1 unless it is long.

        It may take any time between two rows, since cells only grow. Raises OSError.
        """
        sums: dict[bytes, _Sum] = {}  # the rows of workers with the same methods are alike
        for place in range(os.fstat(self._descriptor).st_size // ROW_BYTES):
            names, cells = self._row(place)
            if names:
                if names not in sums:
                    sums[names] = _Sum(len(cells))
                sums[names].add(cells)
                self._show(totals, place, names, memoryview(cells).cast("Q"))
            yield 1 + len(cells) // LONG_BYTES
        for names, summed in sums.items():
            _add(totals, names, summed.cells())

    def _row(self, place: int) -> tuple[bytes, bytes]:
        """Return the names and cells of a row's blocks. A mapping would take a descriptor, whose end ends locks."""
        at = place * ROW_BYTES
        blocks = int.from_bytes(os.pread(self._descriptor, CELL_BYTES, at + CELLS_AT), sys.byteorder)
        names = os.pread(self._descriptor, blocks * NAME_BYTES, at)
        return names, os.pread(self._descriptor, blocks * BLOCK_BYTES, at + CELLS_AT)

    def _show(self, totals: Totals, place: int, names: bytes, cells: memoryview) -> None:
        """Add what a row shows of the present, if its process lives."""
        connections = cells[OwnCell.CONNECTIONS]
        versions = {
            name: cells[at * BLOCK_CELLS]
            for at, (kind, name) in enumerate(_names(names) if b"\0s" in names else ())
            if kind is Block.SETTINGS and cells[at * BLOCK_CELLS]
        }
        if (connections or versions) and system.is_byte_locked(self._descriptor, place):
            totals.connections += connections
            for name, version in versions.items():
                totals.settings_versions[name] = max(version, totals.settings_versions.get(name, 0))


class _Sum:
    """The cells of rows that are alike: one addition adds every other cell, which has room for what is carried."""

    def __init__(self, size: int) -> None:
        """``size`` is that of their cells, in bytes."""
        self._size = size
        self._mask = int.from_bytes((WORD.to_bytes(2 * CELL_BYTES, "little")) * (size // CELL_BYTES // 2), "little")
        self._even = self._odd = 0

    def add(self, cells: bytes) -> None:
        number = int.from_bytes(cells if sys.byteorder == "little" else _swapped(cells), "little")
        self._even += number & self._mask
        self._odd += number >> 8 * CELL_BYTES & self._mask

    def cells(self) -> list[int]:
        both = zip(self._doubles(self._even), self._doubles(self._odd))
        return [cell for pair in both for cell in pair]

    def _doubles(self, number: int) -> Iterator[int]:
        halves = [low for (low,) in struct.iter_unpack("<Q", number.to_bytes(self._size, "little"))]
        return (low + (high << 8 * CELL_BYTES) for low, high in zip(halves[::2], halves[1::2]))


def _swapped(cells: bytes) -> bytes:
    swapped = array("Q", cells)
    swapped.byteswap()
    return swapped.tobytes()


def _names(names: bytes) -> Iterator[tuple[Block | None, str]]:
    for at in range(0, len(names), NAME_BYTES):
        text = names[at : at + NAME_BYTES].rstrip(b"\0").decode("utf-8", "replace")
        try:
            yield Block(text[:1]), text[1:]
        except ValueError:  # of another version
            yield None, text


def _add(totals: Totals, names: bytes, cells: list[int]) -> None:
    for at, (kind, name) in enumerate(_names(names)):
        if kind is not None:
            own, before = cells[at * BLOCK_CELLS : (at + 1) * BLOCK_CELLS], totals.blocks.get((kind, name))
            totals.blocks[kind, name] = own if before is None else [a + b for a, b in zip(own, before)]


def _name(key: tuple[Block, str]) -> str:
    return key[1]


def _histogram(cells: Sequence[int], at: int) -> Histogram:
    return Histogram(cells[at + 1 : at + 1 + BUCKETS], cells[at] / 1e9)


def _calls(cells: Sequence[int]) -> Calls:
    ok, failed = _histogram(cells, OK), _histogram(cells, FAILED)
    outcomes = {"ok": ok.total, **{outcome.name.lower(): cells[outcome] for outcome in Outcome}}
    buckets = [a + b for a, b in zip(ok.buckets, failed.buckets)]
    return Calls(outcomes, Histogram(buckets, ok.seconds + failed.seconds))
