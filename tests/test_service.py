"""What authors of services use: the `rpc` mark and the `Service` base."""

from __future__ import annotations

import pytest

from rpccluster.service import RPCMark, Service, WorkerInfo, rpc


def test_the_mark_leaves_the_function_as_it_is() -> None:
    """It is the same function, which can be called and tested as before."""

    def add(a: int, b: int) -> int:
        return a + b

    assert rpc(name="plus", timeout=2)(add) is add
    assert add(1, 2) == 3
    assert add.__rpc__ == RPCMark("plus", 2)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["", "_private", "__init__", "rpc.", "rpc.ping"])
def test_a_name_that_callers_could_not_use_is_refused(name: str) -> None:
    """Private and reserved names are a fault where they are written."""
    with pytest.raises(ValueError, match="found the method name"):
        rpc(name=name)


@pytest.mark.parametrize("name", ["add", "math.add", "rpc", "Größe", "a b", "-"])
def test_any_other_name_may_be_used(name: str) -> None:
    """Names on the wire need not be Python's."""
    assert rpc(name=name)(lambda: None).__rpc__ == RPCMark(name, None)  # type: ignore[attr-defined]


def test_a_negative_timeout_is_refused() -> None:
    """0 means no limit; less makes no sense."""
    with pytest.raises(ValueError, match=r"found timeout=-0\.1"):
        rpc(timeout=-0.1)
    assert rpc(timeout=0)(lambda: None).__rpc__ == RPCMark(None, 0)  # type: ignore[attr-defined]


def test_the_hooks_do_nothing_by_themselves() -> None:
    """A service that derives and overrides nothing is started and stopped all the same."""
    service, info = Service(), WorkerInfo(slot=0, pid=1, generation=1)
    service.worker_started(info)
    service.worker_stopping(info)
