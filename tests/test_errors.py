"""The hierarchy of errors: as its docstring draws it, complete, and fit to travel."""

from __future__ import annotations

import copy
import importlib
import inspect
import pickle
import pkgutil
import re

import pytest

import rpccluster
from rpccluster import errors
from rpccluster.errors import (
    AddressError,
    CallTimeout,
    ConfigError,
    ConnectFailed,
    ConnectionLost,
    LimitExceeded,
    Lost,
    NoMethodError,
    NotSent,
    RemoteError,
    RPCClusterError,
    StartError,
)


def drawn_tree() -> dict[str, str | None]:
    """Each error in the docstring's tree and the one it hangs on."""
    tree: dict[str, str | None] = {}
    path: list[tuple[int, str]] = []
    for line in inspect.cleandoc(errors.__doc__ or "").splitlines()[1:]:
        match = re.match(r"((?:│   |    |├── |└── )*)(\w+)", line)
        if match:
            depth = len(match[1]) // 4
            path = [*(each for each in path if each[0] < depth), (depth, match[2])]
            tree[match[2]] = path[-2][1] if depth else None
    return tree


def test_the_docstring_draws_the_hierarchy() -> None:
    """Every error stands in the tree under its first base."""
    actual = {
        error.__name__: None if error is RPCClusterError else error.__bases__[0].__name__
        for error in _descendants(RPCClusterError)
        if error.__module__ == errors.__name__
    }
    assert drawn_tree() == actual
    assert set(errors.__all__) < actual.keys()


def test_no_error_of_the_package_lives_elsewhere() -> None:
    """errors.py holds the whole hierarchy; only the old library's names, which are its own, hang on it elsewhere."""
    for module in pkgutil.walk_packages(rpccluster.__path__, "rpccluster."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    homes = {each.__module__ for each in _descendants(RPCClusterError)}
    ours = {home for home in homes if home.startswith("rpccluster.") and not home.startswith("rpccluster.compat.")}
    assert ours == {"rpccluster.errors"}


def _descendants(kind: type) -> set[type]:
    return {kind}.union(*map(_descendants, kind.__subclasses__()))


SAMPLES = [
    StartError("no luck", 3),
    ConfigError(["a.ini:1: x: found 1, expected 2", "a.ini:2: y: found 3, expected 4"]),
    RemoteError("KeyError", "'x'"),
    NoMethodError("", "'x' method not found"),
    LimitExceeded("max_depth", "too deep"),
    CallTimeout("no reply came within 1 s"),
    *(
        getattr(errors, name)("what happened")
        for name in sorted(drawn_tree())
        if not issubclass(getattr(errors, name), (StartError, RemoteError, CallTimeout, LimitExceeded))
    ),
]


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_errors_survive_pickling(error: RPCClusterError, protocol: int) -> None:
    """A service or a test may hand them between processes: type, text and attributes stay."""
    for again in (pickle.loads(pickle.dumps(error, protocol)), copy.copy(error)):
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert vars(again) == vars(error)
        assert again.args == error.args


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (AddressError, ValueError),
        (CallTimeout, TimeoutError),
        (ConnectFailed, ConnectionError),
        (ConnectionLost, ConnectionError),
        (Lost, OSError),
        (NotSent, OSError),
    ],
)
def test_errors_are_caught_as_what_python_calls_them(kind: type, builtin: type) -> None:
    """Code that knows nothing of this package catches them all the same."""
    assert issubclass(kind, builtin)


def test_a_start_error_shows_its_message_alone() -> None:
    """The exit code is carried, not shown; 1 unless said otherwise."""
    assert (str(StartError("why", 4)), StartError("why", 4).exit_code) == ("why", 4)
    assert StartError("why").exit_code == 1


def test_a_config_error_shows_every_fault() -> None:
    """One line for each, in order; exit code 1."""
    error = ConfigError(["one", "two"])
    assert str(error) == "one\ntwo"
    assert error.exit_code == 1


def test_a_remote_error_reads_as_it_came() -> None:
    """``Class: message``; an error of another form is shown as it is."""
    assert str(RemoteError("KeyError", "'x'")) == "KeyError: 'x'"
    assert str(RemoteError("", "odd")) == "odd"
