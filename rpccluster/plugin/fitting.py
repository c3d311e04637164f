"""Fits a plugin's function or class to what it is called with: at most one argument, and ``plugin``. Pure.

A parameter named ``plugin`` gets the plugin itself, wherever it stands. A class is made, then its ``run`` is called. A
class with a classmethod ``for_plugin`` is made by that, of the plugin and what the section has as ``args``
(`rpccluster.compat.processhandler`).
"""

from __future__ import annotations

import inspect
from collections.abc import Coroutine
from dataclasses import dataclass
from types import MethodType, SimpleNamespace
from typing import Any, Callable

from rpccluster.errors import PluginNotLoaded

__all__ = ["Fitted", "fitted"]


@dataclass(frozen=True)
class Fitted:
    """A call with all its arguments. ``takes_plugin`` says whether it gets the plugin.

    Of a class, ``call`` makes the instance, and ``run_of`` returns the call of that one's ``run``.
    """

    call: Callable[[], Any]
    takes_plugin: bool
    run_of: Callable[[Any], Fitted] | None = None

    def __call__(self) -> Any:
        result = self.call()
        if isinstance(result, Coroutine):
            import asyncio

            return asyncio.run(result)
        return result


def fitted(spec: str, found: Any, args: tuple[Any, ...], plugin: Any) -> Fitted:
    """Return the call of ``found``, which ``spec`` names, with ``args``, one or none. Raises `PluginNotLoaded`."""
    if not callable(found):
        raise PluginNotLoaded(f"{spec!r} is of type {type(found).__name__}, expected a function or a class")
    if hasattr(found, "for_plugin"):
        first = Fitted(lambda: found.for_plugin(plugin, *args), takes_plugin=False)
    else:
        first = _fitted(spec, found, args, plugin)
    if not inspect.isclass(found):
        return first
    if not callable(getattr(found, "run", None)):
        raise PluginNotLoaded(f"the class {spec!r} has no method run")

    def fitted_run(made: Any) -> Fitted:
        return _fitted(f"{spec}.run", made.run, (), plugin)

    takes_plugin = first.takes_plugin or fitted_run(_unmade(found)).takes_plugin
    return Fitted(first.call, takes_plugin, fitted_run)


def _unmade(found: Any) -> Any:
    """Return what has the ``run`` that an instance of the class ``found`` would have, to ask for its parameters."""
    is_method = inspect.isfunction(inspect.getattr_static(found, "run"))
    return SimpleNamespace(run=MethodType(found.run, found) if is_method else found.run)


def _fitted(spec: str, function: Callable[..., Any], args: tuple[Any, ...], plugin: Any) -> Fitted:
    signature = _signature(function)
    own = signature.parameters.get("plugin")
    takes_plugin = own is not None and own.kind in (own.POSITIONAL_OR_KEYWORD, own.KEYWORD_ONLY)
    others = [each for each in signature.parameters.values() if each is not own or not takes_plugin]
    given = _bind(spec, others, args)
    if takes_plugin:
        given["plugin"] = plugin
    bound = signature.bind_partial()
    bound.arguments.update({name: given[name] for name in signature.parameters if name in given})
    return Fitted(lambda: function(*bound.args, **bound.kwargs), takes_plugin)


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(function)
    except (ValueError, TypeError):  # some builtins tell nothing
        return inspect.signature(lambda *args: None)


def _bind(spec: str, parameters: list[inspect.Parameter], args: tuple[Any, ...]) -> dict[str, Any]:
    """Return what each of ``parameters`` gets. Raises `PluginNotLoaded` if ``args`` do not fit."""
    needed = [each.name for each in parameters if _is_needed(each)]
    if len(needed) > 1:
        names = ", ".join(needed)
        raise PluginNotLoaded(f"{spec!r} takes {len(needed)} parameters besides plugin ({names}), expected one at most")
    try:
        return dict(inspect.Signature(parameters).bind(*args).arguments)
    except TypeError:
        if args:
            raise PluginNotLoaded(f"{spec!r} takes no argument, but its section has args") from None
        raise PluginNotLoaded(f"{spec!r} takes the argument {needed[0]!r}, but its section has no args") from None


def _is_needed(parameter: inspect.Parameter) -> bool:
    is_open = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    return not is_open and parameter.default is parameter.empty
