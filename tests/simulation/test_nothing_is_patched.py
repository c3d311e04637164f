"""The simulation runs the product's code as it is: all that is made up is handed to it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = '''
import importlib, pkgutil, sys
import os, random, select, signal, socket, time

import rpccluster.master, rpccluster.system

def everything():
    """Return functions, classes and modules by the place where they are found: in modules and in their classes."""
    found = {}
    for name in NAMES:
        for key, value in vars(sys.modules[name]).items():
            note(found, f"{name}.{key}", value)
            if isinstance(value, type) and value.__module__ == name:
                for inner, held in vars(value).items():
                    note(found, f"{name}.{key}.{inner}", held)
    return found

def note(found, place, value):
    if callable(value) or isinstance(value, (property, classmethod, staticmethod, type(sys))):
        found[place] = value

for package in (rpccluster.master, rpccluster.system):
    for each in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(each.name)
NAMES = [name for name in sys.modules if name.startswith("rpccluster")]
NAMES += ["os", "random", "select", "signal", "socket", "time"]
before = everything()

from simulation.afternoon import live_through
if sys.argv[1:]:
    exec(sys.argv[1])
for seed in range(1, 13):
    assert not live_through(seed).fault
after = everything()
print(*sorted(place for place in before if after.get(place) is not before[place]))
'''


def patched(*code: str) -> list[str]:
    """Return the places where something else stands after twelve afternoons and ``code``."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *code],
        cwd=Path(__file__).parent.parent,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=100,
    )
    return done.stdout.split()


def test_no_function_class_or_module_is_replaced() -> None:
    """Neither of the master and its edge to the operating system, nor of the standard library's below it."""
    assert patched() == []


def test_one_that_is_replaced_would_be_found() -> None:
    """By the same look."""
    assert patched("import os; os.getlogin = lambda: 5") == ["os.getlogin"]
