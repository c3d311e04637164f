"""Chooses between the two engines of a worker. Runs in the worker."""

from __future__ import annotations

from typing import Any

from rpccluster.errors import ServiceUnfit
from rpccluster.worker.hot.engine import PythonEngine

__all__ = ["engine_class", "make_engine", "why_not_compiled"]


def why_not_compiled() -> str:
    """Return why the compiled engine cannot run here; empty if it can."""
    try:
        from rpccluster.worker.hot.compiled import engine  # noqa: F401
    except Exception as error:  # PyPy raises SystemError for an extension of CPython's
        return f"{type(error).__name__}: {error}"
    return ""


def engine_class(wanted: str) -> type[PythonEngine]:
    """Return the engine that ``wanted`` names: "python", "compiled", or "auto" for the faster one that is there.

    Raises `ServiceUnfit` if the compiled one is wanted and is not there.
    """
    if wanted == "python":
        return PythonEngine
    reason = why_not_compiled()
    if not reason:
        from rpccluster.worker.hot.compiled.engine import CompiledEngine

        return CompiledEngine
    if wanted == "compiled":
        raise ServiceUnfit(f"cannot load the compiled engine: {reason}")
    return PythonEngine


def make_engine(wanted: str, *arguments: Any, **options: Any) -> PythonEngine:
    """Make the engine that ``wanted`` names; see `engine_class` and `PythonEngine`."""
    return engine_class(wanted)(*arguments, **options)
