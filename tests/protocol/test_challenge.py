"""The challenge, without a socket: what passes it, what does not, whole, byte by byte and with trailing data."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import msgpack
import pytest

from rpccluster.errors import AuthenticationFailed, ConnectFailed
from rpccluster.protocol.challenge import REFUSED, Challenge, Key, Step, as_key, is_other_call, keys_of, proving
from rpccluster.protocol.codec import pack_request

OLD, NEW, WEB = b"old key, 16 byte", b"new key, 16 byte", b"web key, 16 byte"
KEYS = keys_of("\n".join(f"{name} {key.hex()}" for name, key in (("default", OLD), ("default", NEW), ("web", WEB))))
NONCE = bytes(range(32))


def told(step: Step) -> list[Any]:
    """The message that a step sends."""
    return msgpack.unpackb(step.output) if step.output else []


def exchange(challenge: Challenge, key: Key) -> Step:
    """Let a client prove ``key``; the last step of the server."""
    client, output = proving(key), b""
    output = next(client)
    step = Step()
    try:
        while True:
            step = challenge.take(output)
            output = client.send(step.output)
    except StopIteration:
        return step


@pytest.mark.parametrize(("name", "key"), [("default", OLD), ("default", NEW), ("web", WEB)])
def test_each_key_of_a_name_passes(name: str, key: bytes) -> None:
    """Both sides prove that they know the key, the second one of a name, too."""
    challenge = Challenge(KEYS)
    step = exchange(challenge, Key(name, key))
    assert step.is_passed and not step.has_failed
    assert challenge.name == name


def test_the_proofs_are_those_of_the_protocol() -> None:
    """HMAC-SHA-256 over the side's words and both nonces, so that any client can make and check them."""
    challenge = Challenge(KEYS)
    _, msgid, error, (nonce_s, proof_s) = told(challenge.take(pack_request(7, "rpc.authenticate", [1, "web", NONCE])))
    assert (msgid, error, len(nonce_s)) == (7, None, 32)
    assert proof_s == hmac.new(WEB, b"rpccluster-1 server" + NONCE + nonce_s, hashlib.sha256).digest()
    proof_c = hmac.new(WEB, b"rpccluster-1 client" + NONCE + nonce_s, hashlib.sha256).digest()
    step = challenge.take(pack_request(8, "rpc.authenticate", [2, proof_c]) + b"\x94more")
    assert told(step) == [1, 8, None, True]
    assert step.is_passed and step.rest == b"\x94more"


def test_byte_by_byte_it_is_the_same() -> None:
    """Pieces of any size make no difference."""
    challenge = Challenge(KEYS)
    first = b"".join(
        challenge.take(bytes([byte])).output for byte in pack_request(1, "rpc.authenticate", [1, "web", NONCE])
    )
    nonce_s = msgpack.unpackb(first)[3][0]
    proof_c = hmac.new(WEB, b"rpccluster-1 client" + NONCE + nonce_s, hashlib.sha256).digest()
    steps = [challenge.take(bytes([byte])) for byte in pack_request(2, "rpc.authenticate", [2, proof_c])]
    assert steps[-1].is_passed and not any(step.output for step in steps[:-1])


@pytest.mark.parametrize(
    "first",
    [
        pack_request(3, "sum", [1, 2]),
        pack_request(3, "rpc.ping", []),
        pack_request(3, "rpc.authenticate", []),
        pack_request(3, "rpc.authenticate", {}),
        pack_request(3, "rpc.authenticate", [1, "web"]),
        pack_request(3, "rpc.authenticate", [1, "web", b"short"]),
        pack_request(3, "rpc.authenticate", [1, 7, NONCE]),
        pack_request(3, "rpc.authenticate", [2, bytes(32)]),
        pack_request(3, "rpc.authenticate", [3, "web", NONCE]),
        pack_request(3, "rpc.authenticate", [True, "web", NONCE]),
        pack_request(3, "rpc.authenticate", [1.0, "web", NONCE]),
        pack_request(3, "rpc.authenticate", [1, "x" * 2000, NONCE]),
        pack_request(3, "sum", [b"x" * 2000]),
    ],
)
def test_everything_else_has_one_answer(first: bytes) -> None:
    """A call, a step out of turn, a wrong type, too many bytes: the same error, and the end."""
    step = Challenge(KEYS).take(first)
    assert step.has_failed and not step.is_passed
    assert msgpack.unpackb(step.output)[2:] == [REFUSED, None]


@pytest.mark.parametrize(
    "first",
    [b"GET / HTTP/1.1\r\n\r\n", b"\xc1", b"\x00", b"\x94" * 1024, b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff"],
)
def test_what_is_no_messagepack_rpc_has_the_same_answer(first: bytes) -> None:
    """Bytes of any kind, and arrays that claim to be huge."""
    step = Challenge(KEYS).take(first)
    assert step.has_failed and told(step) == [1, 0, REFUSED, None]


def test_a_message_that_never_ends_is_refused_at_1_kib() -> None:
    """No byte more is kept."""
    challenge = Challenge(KEYS)
    head = pack_request(1, "rpc.authenticate", [1, "web", bytes(1020)])[:1000]
    assert challenge.take(head) == Step()
    assert challenge.take(b"x" * 24).has_failed


def test_a_wrong_key_and_an_unknown_name_look_alike() -> None:
    """Whoever does not know a key gets a proof of the same form, and the same refusal; the client sees through it."""
    for name in ("web", "nobody"):
        challenge = Challenge(KEYS)
        nonce_s, proof_s = told(challenge.take(pack_request(1, "rpc.authenticate", [1, name, NONCE])))[3]
        assert (len(nonce_s), len(proof_s)) == (32, 32)
        step = challenge.take(pack_request(2, "rpc.authenticate", [2, bytes(32)]))
        assert told(step) == [1, 2, REFUSED, None] and step.has_failed
        with pytest.raises(AuthenticationFailed):
            exchange(Challenge(KEYS), Key(name, b"no such key, 16 bytes"))


def test_what_was_overheard_proves_nothing() -> None:
    """A proof is of its own exchange, and that of the server is none of the client."""
    nonce_s, proof_s = told(Challenge(KEYS).take(pack_request(1, "rpc.authenticate", [1, "web", NONCE])))[3]
    proof_c = hmac.new(WEB, b"rpccluster-1 client" + NONCE + nonce_s, hashlib.sha256).digest()
    for replayed in (proof_c, proof_s):
        challenge = Challenge(KEYS)
        challenge.take(pack_request(1, "rpc.authenticate", [1, "web", NONCE]))
        assert challenge.take(pack_request(2, "rpc.authenticate", [2, replayed])).has_failed


def test_nobody_may_ask_for_ever() -> None:
    """As many proofs as a name has keys at most, for names that are not known, too."""
    for name in ("default", "web", "nobody"):
        challenge, asked = Challenge(KEYS), pack_request(1, "rpc.authenticate", [1, name, NONCE])
        assert [challenge.take(asked).has_failed for _ in range(3)] == [False, False, True]


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        ([b""], ConnectFailed),
        ([msgpack.packb([1, 0, "'rpc.authenticate' method not found", None])], AuthenticationFailed),
        (
            [msgpack.packb([1, 0, None, [bytes(32), bytes(32)]]), msgpack.packb([1, 1, REFUSED, None])],
            AuthenticationFailed,
        ),
        ([msgpack.packb([1, 0, None, True])], AuthenticationFailed),
        ([msgpack.packb([1, 5, None, [bytes(32), bytes(32)]])], AuthenticationFailed),
        ([b"HTTP/1.1 400 Bad Request\r\n"], AuthenticationFailed),
        ([b"\xc1"], AuthenticationFailed),
    ],
)
def test_a_client_calls_no_server_that_cannot(answers: list[bytes], error: type[Exception]) -> None:
    """One that has no such method, that proves nothing, that answers something else, or that goes."""
    client = proving(Key("web", WEB))
    next(client)
    with pytest.raises(error):
        for answer in answers:
            client.send(answer)


def test_a_peer_that_need_not_pass_may_call_at_once() -> None:
    """Its first bytes tell, as soon as they can; a challenge is told from any other call."""
    call, challenge = pack_request(1, "sum", [1, 2]), pack_request(1, "rpc.authenticate", [1, "web", NONCE])
    assert is_other_call(call) is True
    assert is_other_call(challenge) is False
    assert is_other_call(call[:3]) is None and is_other_call(challenge[:20]) is None
    assert is_other_call(pack_request(1, "sum", [b"x" * 5000])[:1100]) is True
    assert is_other_call(b"\x93") is True and is_other_call(b"GET /") is True


def test_what_a_user_may_give_as_a_key() -> None:
    """A key, or a pair of name and key, each as text or bytes."""
    assert as_key("k" * 16) == as_key(b"k" * 16) == Key("default", b"k" * 16)
    assert as_key(("web", "k" * 16)) == as_key((b"web", b"k" * 16)) == Key("web", b"k" * 16)
    assert as_key(None) is None
    with pytest.raises(ValueError, match="found an authkey of 15 bytes, expected at least 16"):
        as_key("k" * 15)
    with pytest.raises(TypeError):
        as_key(7)  # type: ignore[arg-type]
