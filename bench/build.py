"""Compiles the programs in C, once for each state of their sources, into `.bench`. Bench process only."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from bench.errors import BenchError

__all__ = ["BUILT", "CHECKOUT", "PROGRAMS", "NoCompilerError", "build"]

CHECKOUT = Path(__file__).resolve().parent.parent
BUILT = CHECKOUT / ".bench"
NATIVE = Path(__file__).resolve().parent / "native"
FLAGS = ["-std=gnu11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra"]
PROGRAMS = {
    "load": ["load.c", "calls.c", "connection.c", "wire.c"],
    "floor": ["floor.c", "wire.c"],
    "storm": ["storm.c"],
}


class NoCompilerError(BenchError):
    """There is no C compiler on PATH."""


def build(program: str) -> Path:
    """The path of a compiled program. Raises `NoCompilerError`, or `BenchError` with what the compiler said."""
    target = BUILT / f"{program}-{_digest()}"
    if not target.exists():
        BUILT.mkdir(exist_ok=True)
        _compile(program, target)
    return target


def _digest() -> str:
    sources = b"".join(path.read_bytes() for path in sorted(NATIVE.iterdir()))
    return hashlib.sha256(sources + " ".join(FLAGS).encode()).hexdigest()[:12]


def _compile(program: str, target: Path) -> None:
    """Compile aside, then rename: a half-written program is never run."""
    aside = target.with_name(f"{target.name}.{os.getpid()}")
    command = [_compiler(), *FLAGS, "-o", str(aside), *(str(NATIVE / source) for source in PROGRAMS[program])]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}")
    aside.rename(target)


def _compiler() -> str:
    for name in (os.environ.get("CC", ""), "cc", "gcc", "clang"):
        path = shutil.which(name) if name else None
        if path:
            return path
    raise NoCompilerError("found no C compiler, expected cc, gcc or clang on PATH (or CC): the load generator is in C")
