"""The challenge by which two peers prove to each other that they know a key, before anything else is said. Sans-I/O.

Both ends use it: a worker's handshake (`Challenge`) and the clients (`proving`); neither sees a clock or a socket here.
The client sends ``rpc.authenticate [1, NAME, nonce_c]``, the server replies ``[nonce_s, proof_s]``. The client checks
that proof and sends ``rpc.authenticate [2, proof_c]``, which the server answers with true, or with `REFUSED`, the one
answer for all failures. A proof is the HMAC-SHA-256, by the key, of `SERVER` or `CLIENT`, nonce_c and nonce_s. So
nothing that was overheard proves anything in another exchange, and no proof of one side serves the other.

While a key is rotated a name has several, and the server cannot know which one the client has: it proves the first.
A client to which that proves nothing asks again with step 1, and gets a proof by the next key. A name that is not known
is answered like any other, by a key that nobody has, so that nobody learns which names there are.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Generator, Mapping
from typing import Any, NamedTuple, Union

import msgpack

from rpccluster.errors import AuthenticationFailed, ConnectFailed
from rpccluster.protocol.codec import DECODE_ERRORS, pack_request, pack_response
from rpccluster.protocol.messages import MAX_MSGID, REQUEST, RESPONSE

__all__ = [
    "AUTHENTICATE",
    "DEFAULT_NAME",
    "MOST_BYTES",
    "REFUSED",
    "AuthKey",
    "Challenge",
    "Key",
    "Keys",
    "Proving",
    "Step",
    "answered_pings",
    "as_key",
    "is_other_call",
    "keys_of",
    "proving",
]

#: The method's name.
AUTHENTICATE = "rpc.authenticate"
#: The name of a key that was given without one.
DEFAULT_NAME = "default"
#: The largest message before the challenge is passed.
MOST_BYTES = 1024
#: The only error of the challenge. It does not say what was wrong.
REFUSED = "AuthenticationError: the challenge was not passed: prove a key that this server knows by rpc.authenticate"

NONCE_BYTES = 32
LEAST_KEY_BYTES = 16
SERVER = b"rpccluster-1 server"
CLIENT = b"rpccluster-1 client"

_PROOF_BYTES = hashlib.sha256().digest_size
_HEAD = b"\x94\x00"  # of a request: an array of 4, and its type
_LIMITS: dict[str, Any] = {
    "raw": True,
    "strict_map_key": False,
    "max_buffer_size": 2 * MOST_BYTES,
    "max_array_len": 4,
    "max_map_len": 0,
    "max_ext_len": 0,
}


class Key(NamedTuple):
    """A client's key, and the name under which the server knows it."""

    name: str
    secret: bytes


#: The keys of a server, by name, in the order in which they are tried.
Keys = Mapping[str, "tuple[bytes, ...]"]


#: What a user gives as a key: the key, or its name and the key; or nothing.
AuthKey = Union[None, str, bytes, "tuple[str | bytes, str | bytes]", Key]


def as_key(authkey: AuthKey) -> Key | None:
    """Return what a user gives as ``authkey``: a key or a pair of name and key, each str or bytes; None stays None.

    Raises TypeError, or ValueError for a key that is too short.
    """
    if authkey is None or isinstance(authkey, Key):
        return authkey
    pair = authkey if isinstance(authkey, (tuple, list)) else (DEFAULT_NAME, authkey)
    if len(pair) != 2 or not all(isinstance(part, (str, bytes)) for part in pair):
        raise TypeError('found an authkey of another form, expected "KEY" or ("NAME", "KEY"), each str or bytes')
    name, secret = (part.encode() if isinstance(part, str) else bytes(part) for part in pair)
    if len(secret) < LEAST_KEY_BYTES:
        raise ValueError(f"found an authkey of {len(secret)} bytes, expected at least {LEAST_KEY_BYTES}")
    return Key(name.decode("utf-8", "surrogateescape"), secret)


def keys_of(text: str) -> Keys:
    """Read keys from lines of a name and a key in hexadecimal digits, as processes tell them each other."""
    found: dict[str, tuple[bytes, ...]] = {}
    for line in text.splitlines():
        name, _, secret = line.partition(" ")
        found[name] = (*found.get(name, ()), bytes.fromhex(secret))
    return found


def _proof(secret: bytes, side: bytes, nonce_c: bytes, nonce_s: bytes) -> bytes:
    return hmac.digest(secret, side + nonce_c + nonce_s, "sha256")


class Step(NamedTuple):
    """The outcome of some input: what to send, and whether the challenge is passed or has failed.

    ``rest`` is the input behind a challenge that is over.
    """

    output: bytes = b""
    is_passed: bool = False
    has_failed: bool = False
    rest: bytes = b""


class Challenge:
    """The server's side for one connection. ``name`` is that of the key, once it is passed."""

    def __init__(self, keys: Keys) -> None:
        self.name = ""
        self._keys = keys
        self._kept = b""
        self._asked = 0  # how often it has proved a key
        self._nonces = (b"", b"")
        self._tried: tuple[bytes, ...] = ()  # the keys of the name that the peer gives

    def take(self, data: bytes) -> Step:
        """Take some input."""
        self._kept += data
        output = b""
        while self._kept:
            message, size = _first(self._kept)
            if not size:
                return Step(output) if len(self._kept) < MOST_BYTES else Step(output + _refusal(0), has_failed=True)
            self._kept = self._kept[size:]
            msgid, params = _authenticate(message)
            if size > MOST_BYTES or params is None:
                return Step(output + _refusal(msgid), has_failed=True)
            if params[:1] == [2] and self._is_proof(params):
                return Step(output + pack_response(msgid, None, True), is_passed=True, rest=self._kept)
            answer = self._prove(msgid, params) if params[:1] == [1] else None
            if answer is None:
                return Step(output + _refusal(msgid), has_failed=True)
            output += answer
        return Step(output)

    def _prove(self, msgid: int, params: list[Any]) -> bytes | None:
        """Return the answer to step 1; None if it is no such step, or if there is no other key to prove."""
        name, nonce_c = params[1:] if len(params) == 3 else (None, None)
        if not isinstance(name, bytes) or not isinstance(nonce_c, bytes) or len(nonce_c) != NONCE_BYTES:
            return None
        if self._asked >= max(map(len, self._keys.values()), default=1):
            return None
        self.name = name.decode("utf-8", "surrogateescape")
        self._tried = self._keys.get(self.name, ())
        secret = self._tried[self._asked] if self._asked < len(self._tried) else os.urandom(NONCE_BYTES)
        self._asked += 1
        self._nonces = nonce_c, os.urandom(NONCE_BYTES)
        return pack_response(msgid, None, [self._nonces[1], _proof(secret, SERVER, *self._nonces)])

    def _is_proof(self, params: list[Any]) -> bool:
        """Return whether step 2 proves one of the keys of the name that the peer has given; it has one attempt."""
        if len(params) != 2 or not isinstance(params[1], bytes) or not self._asked:
            return False
        expected = [_proof(secret, CLIENT, *self._nonces) for secret in self._tried]
        return sum(hmac.compare_digest(params[1], each) for each in expected) > 0  # all of them, as each takes its time


def is_other_call(data: bytes) -> bool | None:
    """Return whether ``data``, the first bytes of a peer, begin with anything but the challenge; None if that is open.

    For peers that need not pass it.
    """
    message, size = _first(data)
    if not size:
        return None if data[:2] == _HEAD[: len(data)] and len(data) < MOST_BYTES else True
    return _authenticate(message)[1] is None


def answered_pings(data: bytes) -> tuple[bytes, bytes]:
    """Answer the calls of ``rpc.ping`` at the begin of ``data``. Returns the answers, and the data behind them."""
    answers = b""
    while data:
        message, size = _first(data)
        is_request = size and type(message) is list and len(message) == 4 and message[0] == REQUEST
        if not is_request or message[2] != b"rpc.ping" or type(message[1]) is not int:
            break
        answers += pack_response(message[1], None, "pong")
        data = data[size:]
    return answers, data


def _first(data: bytes) -> tuple[Any, int]:
    """Return the first message of ``data`` and its size; 0 if it is incomplete, the size of all for no MessagePack."""
    unpacker = msgpack.Unpacker(**_LIMITS)
    try:
        unpacker.feed(data[: MOST_BYTES + 1])
        return unpacker.unpack(), unpacker.tell()
    except msgpack.OutOfData:
        return None, 0
    except DECODE_ERRORS:
        return None, len(data)


def _authenticate(message: Any) -> tuple[int, list[Any] | None]:
    """Return the msgid of a request, 0 where there is none, and the params; None if it is not for `AUTHENTICATE`."""
    if type(message) is not list or len(message) != 4:
        return 0, None
    kind, msgid, name, params = message
    if type(kind) is not int or kind != REQUEST or type(msgid) is not int or not 0 <= msgid <= MAX_MSGID:
        return 0, None
    is_ours = name == AUTHENTICATE.encode() and type(params) is list and type(params[0] if params else None) is int
    return msgid, params if is_ours else None


def _refusal(msgid: int) -> bytes:
    return pack_response(msgid, REFUSED, None)


#: The client's side: yields bytes to send, and is sent what has come, b"" at the end of the stream. It ends when the
#: server has proved that it knows the key, and has said that we have. Raises `AuthenticationFailed`, or
#: `ConnectFailed` if the stream ends before.
Proving = Generator[bytes, bytes, None]


def proving(key: Key) -> Proving:
    """Begin the client's side of the challenge with ``key``."""
    name = key.name.encode("utf-8", "surrogateescape")
    msgid = 0
    while True:
        nonce_c = os.urandom(NONCE_BYTES)
        request = pack_request(msgid, AUTHENTICATE, [1, key.name, nonce_c])
        found = yield from _ask(request, msgid)
        if not (type(found) is list and len(found) == 2 and all(type(each) is bytes for each in found)):
            raise AuthenticationFailed(f"the server cannot prove that it knows the key {name.decode(errors='replace')}")
        nonce_s, proof_s = found
        msgid += 1
        if len(nonce_s) == NONCE_BYTES and hmac.compare_digest(_proof(key.secret, SERVER, nonce_c, nonce_s), proof_s):
            break
    proof_c = _proof(key.secret, CLIENT, nonce_c, nonce_s)
    if (yield from _ask(pack_request(msgid, AUTHENTICATE, [2, proof_c]), msgid)) is not True:
        raise AuthenticationFailed("the server does not accept the key")


def _ask(request: bytes, msgid: int) -> Generator[bytes, bytes, Any]:
    """Send ``request``, and return its result. Raises as `proving`."""
    kept, output = b"", request
    size = 0
    while not size:
        data = yield output
        if not data:
            raise ConnectFailed("the server ended the connection in the middle of the challenge")
        kept, output = kept + data, b""
        message, size = _first(kept) if len(kept) <= MOST_BYTES else (None, len(kept))
    if type(message) is not list or len(message) != 4 or message[:2] != [RESPONSE, msgid] or size != len(kept):
        raise AuthenticationFailed("the server answers the challenge with something else")
    if message[2] is not None:
        told = message[2].decode("utf-8", "replace") if type(message[2]) is bytes else repr(message[2])
        raise AuthenticationFailed(f"the server refuses the challenge: {told[:MOST_BYTES]}")
    return message[3]
