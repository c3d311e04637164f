"""Which engine a worker gets."""

from __future__ import annotations

import builtins
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from rpccluster.errors import ServiceUnfit
from rpccluster.worker.hot.choice import engine_class, why_not_compiled
from rpccluster.worker.hot.engine import PythonEngine


def test_it_is_built_where_it_can_be(engine: str) -> None:
    """With a compiler and Python's headers."""
    headers = Path(sysconfig.get_paths()["include"], "Python.h")
    if sys.implementation.name != "cpython" or not shutil.which("cc") or not headers.exists():
        pytest.skip("there is no compiler, or no header of Python")
    assert why_not_compiled() == ""
    assert engine_class("auto").name == engine_class("compiled").name == "compiled"


def test_python_is_python(engine: str) -> None:
    """Though the other one is there."""
    assert engine_class("python") is PythonEngine


@pytest.mark.parametrize("error", [ImportError, SystemError])
def test_without_the_extension(engine: str, error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python engine serves, unless the other one is asked for by name."""
    real = builtins.__import__

    def no_extension(name: str, *arguments: Any) -> Any:
        if name.startswith("rpccluster.worker.hot.compiled"):
            raise error("not built")
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", no_extension)
    assert engine_class("auto") is PythonEngine
    with pytest.raises(ServiceUnfit, match=r"cannot load the compiled engine: .*not built"):
        engine_class("compiled")
