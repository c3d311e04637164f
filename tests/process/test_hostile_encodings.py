"""Every value of the npm package msgpack-test-suite, in every encoding it knows, echoes right through a cluster."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from rpccluster.testing import RunningCluster, running_cluster

PACKAGE = "msgpack-test-suite"
VERSION = "1.0.0"
FILE = f"{PACKAGE}.json"
VENDORED = Path(__file__).resolve().parent.parent / "data" / PACKAGE / FILE
PACK_SECONDS = 60.0

Groups = dict[str, list[dict[str, Any]]]


def packed_by_npm(folder: Path) -> Groups:
    """The package's JSON as npm has it. Skips the test if npm, or what it fetches from, is not to be had."""
    if not shutil.which("npm"):
        pytest.skip("npm is not installed")
    command = ["npm", "pack", f"{PACKAGE}@{VERSION}", "--silent"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PACK_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm pack had no answer in {PACK_SECONDS:g} seconds")
    if done.returncode:
        pytest.skip(f"npm pack failed: {done.stderr.strip()[:200]}")
    with tarfile.open(folder / f"{PACKAGE}-{VERSION}.tgz") as archive:
        found = archive.extractfile(f"package/dist/{FILE}")
        assert found is not None
        groups: Groups = json.load(found)
    return groups


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    """The demo's echo."""
    with running_cluster(tmp_path_factory.mktemp("suite")) as cluster:
        yield cluster


@pytest.fixture(scope="module", params=["vendored", "npm"])
def groups(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Groups:
    """The suite: groups of values, each with its encodings."""
    if request.param == "npm":
        return packed_by_npm(tmp_path_factory.mktemp("npm"))
    vendored: Groups = json.loads(VENDORED.read_text())
    return vendored


def from_hex(text: str) -> bytes:
    """Bytes from what the suite writes: ``a1-61``."""
    return bytes.fromhex(text.replace("-", ""))


def value_of(entry: dict[str, Any]) -> Any:
    """The value that all of an entry's encodings stand for, as this project decodes it."""
    kind = next(key for key in ("bignum", *entry) if key in entry)
    value = entry[kind]
    if kind == "bignum":
        return int(value)
    if kind == "binary":
        return from_hex(value)
    if kind == "timestamp":
        return msgpack.Timestamp(*value)
    if kind == "ext":
        return msgpack.ExtType(value[0], from_hex(value[1]))
    return value


def entries(groups: Groups) -> Iterator[tuple[Any, list[bytes]]]:
    """Each value with its encodings."""
    for group in groups.values():
        for entry in group:
            yield value_of(entry), [from_hex(encoding) for encoding in entry["msgpack"]]


class Echo:
    """A connection that sends bytes as they are and knows the bytes of what comes back."""

    def __init__(self, address: str) -> None:
        host, _, port = address.partition("//")[2].rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Echo:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def __call__(self, packed: bytes, cut: int = 0) -> bytes:
        """The result of ``echo`` for one packed value, which is sent in two pieces."""
        self._socket.sendall(b"\x94\x00\x07\xa4echo\x91" + packed[:cut])
        self._socket.sendall(packed[cut:])
        reply, unpacker = b"", msgpack.Unpacker()
        while True:
            data = self._socket.recv(65536)
            assert data, "it has closed the connection"
            reply += data
            unpacker.feed(data)
            try:
                unpacker.skip()
            except msgpack.OutOfData:
                continue
            assert reply.startswith(b"\x94\x01\x07\xc0"), reply
            return reply[4:]


def test_every_encoding_echoes_right(running: RunningCluster, groups: Groups) -> None:
    """What comes back is one of the encodings that the suite lists for that value."""
    with Echo(running.address) as echo:
        for value, encodings in entries(groups):
            for encoding in encodings:
                assert echo(encoding) in encodings, (value, encoding)


def test_every_encoding_is_taken_in_pieces(running: RunningCluster, groups: Groups) -> None:
    """However a message is cut."""
    with Echo(running.address) as echo:
        every = [encodings for _, encodings in entries(groups)]
        array = b"\xdc" + len(every).to_bytes(2, "big") + b"".join(encodings[-1] for encodings in every)
        expected = b"\xdc" + len(every).to_bytes(2, "big") + b"".join(echo(encodings[-1]) for encodings in every)
        for cut in range(1, len(array), 17):
            assert echo(array, cut) == expected


def test_every_value_passes_through_the_client(running: RunningCluster, groups: Groups) -> None:
    """As the contract's types: bytes, ExtType and Timestamp among them."""
    with running.client() as client:
        for value, _ in entries(groups):
            echoed = client.call("echo", value)
            assert (type(echoed), echoed) == (type(value), value)
