"""What one side cannot read costs the other calls of its connection nothing: on a real cluster, with every client."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rpccluster import Client, Pool, aio
from rpccluster.testing import RunningCluster, running_cluster

MIB = 1 << 20

SERVICE = """
import time

class Odd:
    def __init__(self):
        self.called = 0

    def sleep(self, seconds, value):
        time.sleep(seconds)
        return value

    def echo(self, value):
        self.called += 1
        return value

    def keys(self):
        return {(1, (2, 3)): "x"}

    def map_as_key(self):
        class Key(dict):
            def __hash__(self):
                return 1
        return {Key(a=1): 2}

    def big(self, size):
        return bytes(size)

    def calls(self):
        return self.called
"""


class Key(dict):  # type: ignore[type-arg]
    """A map that can be a key."""

    def __hash__(self) -> int:  # type: ignore[override]
        return 1


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth - 1):
        value = [value]
    return value


#: Calls, and the errors they end with; None is a result.
ODD: list[tuple[str, tuple[Any, ...], str | None]] = [
    ("keys", (), None),
    ("echo", ({(1, 2): "x"},), None),
    ("map_as_key", (), "ProtocolError: found a map with a map in a key, which no dict can have"),
    ("echo", (bytes(3 * MIB),), "ValueError: found a message of 31457"),
    ("echo", (nested(150),), "ValueError: found a message nested more than 120 deep (max_depth)"),
    ("echo", (nested(110),), "ArgumentError: ArgumentError: found a message nested more than 100 deep (max_depth)"),
    ("echo", (bytes(3 * MIB // 2),), f"ArgumentError: ArgumentError: found a message of more than {MIB} bytes"),
    ("echo", ({Key(a=1): 2},), "ArgumentError: ArgumentError: found a map with a map in a key"),
]
#: More than the server takes of a call, so that some reach it.
OPTIONS: dict[str, Any] = {"max_message_size": 2 * MIB, "max_depth": 120, "timeout": 30}


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    """A worker that takes 1 MiB at most."""
    folder: Path = tmp_path_factory.mktemp("odd")
    (folder / "odd.py").write_text(SERVICE)
    with running_cluster(folder, service="odd:Odd", number_workers=1, max_message_size="1M") as running:
        yield running


def outcome(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def by_threads(client: Any, odd_calls: list[Any] = ODD) -> tuple[list[Any], list[Any]]:
    waiting = [client.call_async("sleep", 0.4, number, idempotent=True) for number in range(4)]
    found = []
    for method, params, _ in odd_calls:
        try:
            found.append(client.call(method, *params, idempotent=True))
        except Exception as error:
            found.append(outcome(error))
    return found, [future.result(30) for future in waiting]


async def by_aio(client: Any, odd_calls: list[Any] = ODD) -> tuple[list[Any], list[Any]]:
    waiting = [client.call_async("sleep", 0.4, number, idempotent=True) for number in range(4)]
    await asyncio.sleep(0.05)
    found = []
    for method, params, _ in odd_calls:
        try:
            found.append(await client.call(method, *params, idempotent=True))
        except Exception as error:
            found.append(outcome(error))
    return found, await asyncio.gather(*waiting)


def by_face(face: str, address: str) -> tuple[list[Any], list[Any]]:
    if face == "Client":
        with Client(address, **OPTIONS) as client:
            return by_threads(client)
    if face == "Pool":
        with Pool(address, connections=1, **OPTIONS) as pool:
            return by_threads(pool)

    async def main() -> tuple[list[Any], list[Any]]:
        if face == "aio.Client":
            async with aio.Client(address, **OPTIONS) as client:
                return await by_aio(client)
        async with aio.Pool(address, connections=1, **OPTIONS) as pool:
            return await by_aio(pool)

    return asyncio.run(main())


@pytest.mark.parametrize("face", ["Client", "Pool", "aio.Client", "aio.Pool"])
def test_each_ends_its_own_call(odd: RunningCluster, face: str) -> None:
    """With a result or an error; the four calls in flight end well, and nothing is sent twice."""
    with Client(odd.address) as client:
        before = client.call("calls")
        found, waiting = by_face(face, odd.address)
        assert waiting == [0, 1, 2, 3]
        assert client.call("calls") == before + 1
        for result, (method, params, error) in zip(found, ODD):
            if error is None:
                assert result == ({(1, (2, 3)): "x"} if method == "keys" else params[0])
            else:
                assert result.startswith(error)


def test_a_result_that_is_too_large_for_its_client(odd: RunningCluster) -> None:
    """Likewise; the client's own limit is what counts."""
    with Client(odd.address, max_message_size=MIB // 4) as client:
        waiting = [client.call_async("sleep", 0.3, number) for number in range(4)]
        found = by_threads(client, [("big", (MIB // 2,), None), ("echo", (1,), None)])
        assert found == (
            [f"LimitExceeded: found a message of more than {MIB // 4} bytes (max_message_size)", 1],
            [0, 1, 2, 3],
        )
        assert [future.result(30) for future in waiting] == [0, 1, 2, 3]
