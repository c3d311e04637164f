"""The package's public names, pinned: a change here is a change for users."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import pytest

import rpccluster
from rpccluster.worker.hot.choice import why_not_compiled

PUBLIC = [
    "AddressError",
    "ArgumentError",
    "AuthenticationFailed",
    "CallError",
    "CallTimeout",
    "Client",
    "ConnectFailed",
    "ConnectionLost",
    "Later",
    "LeadLost",
    "LeaseLost",
    "Lost",
    "NoMethodError",
    "NoSuchQueue",
    "NotLeader",
    "NotSent",
    "Plugin",
    "Pool",
    "PoolFull",
    "ProtocolError",
    "Queue",
    "QueueDown",
    "QueueFull",
    "RPCClusterError",
    "RemoteError",
    "Service",
    "Setting",
    "SoftTimeLimit",
    "StaleToken",
    "TaskFailure",
    "TaskPool",
    "TooManyWaiting",
    "__version__",
    "aio",
    "current_call",
    "leadership",
    "pool",
    "queue",
    "rpc",
    "settings",
    "task",
]

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(rpccluster.__path__, "rpccluster.")
    if not module.ispkg and not module.name.endswith("__main__")
)


def test_the_public_names_are_these() -> None:
    """Nothing more, nothing less, and each can be had."""
    assert sorted(rpccluster.__all__) == PUBLIC
    assert all(hasattr(rpccluster, name) for name in PUBLIC)


def test_a_star_import_brings_them() -> None:
    """Names that are loaded when first used are found by it, too."""
    names: dict[str, object] = {}
    exec("from rpccluster import *", names)
    assert set(PUBLIC) <= set(names)


def test_an_unknown_name_is_an_attribute_error() -> None:
    """As of any module."""
    with pytest.raises(AttributeError, match="module 'rpccluster' has no attribute 'Nope'"):
        _ = rpccluster.Nope


def test_importing_the_package_loads_nothing_heavy() -> None:
    """Its parts come when they are used."""
    program = (
        "import sys, rpccluster; heavy = {'gevent', 'msgpack', 'click', 'psutil', 'asyncio', 'logging', 'socket'};"
        "print(*heavy & set(sys.modules)); rpccluster.Service; print(*heavy & set(sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert shown.stdout.split() == []


@pytest.mark.parametrize("name", [name for name in MODULES if name != "rpccluster.version"])
def test_every_module_declares_its_names_and_its_charter(name: str) -> None:
    """`__all__` names what there is, and the docstring says what the module owns."""
    if name == "rpccluster.worker.hot.compiled.engine" and why_not_compiled():
        pytest.skip("the compiled engine was not built")
    module = importlib.import_module(name)
    assert module.__doc__
    assert all(hasattr(module, each) for each in module.__all__)
