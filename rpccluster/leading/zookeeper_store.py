"""The store in ZooKeeper, by kazoo: who leads stands under PATH/lead, the members under PATH/members.

Each cluster has a node under PATH/lead that ends with its session; the cluster with the lowest one leads. The node's
czxid is its token, which grows over all nodes. A renewal writes to that node: a write is answered after a majority has
it, so neither a server that is cut off nor a leader of servers that is none any more can answer one, and the answer
tells that the node is this session's. The lease ends after `LEASE_SHARE` of a session, counted from the question: a
server that is no leader passes on what it has heard of a session with a delay of up to half a tick.

None of kazoo's waiting calls and recipes is used: they wait as long as a server is paused. Each call here has an end.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import time
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from kazoo.client import KazooClient, KazooState
from kazoo.exceptions import KazooException, NoAuthError, NodeExistsError, NoNodeError
from kazoo.handlers.threading import SequentialThreadingHandler
from kazoo.retry import KazooRetry
from kazoo.security import OPEN_ACL_UNSAFE, make_acl, make_digest_acl

from rpccluster.errors import StoreDown
from rpccluster.leading.address import StoreAddress
from rpccluster.leading.store import NOBODY, Standing, boot_ns

__all__ = ["ZooKeeperStore"]

LEASE_SHARE = 0.75
WAIT_SHARE = 0.5  # of a session, for an answer: past it nothing good can come of it
CONNECT_SHARE = 1 / 12  # of a session, for which a first connection is waited for each time
LEAST_CONNECT = 0.2
LONGEST_CONNECT = 2.0  # seconds for a connection to one server
RETRY_DELAY, RETRY_DELAY_MAX = 0.05, 0.5  # kazoo's own grows to a minute, in which sessions end
USER = "rpccluster"  # of a password that names none

_IN_LINE = re.compile("n-[0-9]{10}")  # a node of a cluster that stands for the lead; others are rubbish
_T = TypeVar("_T")


class ZooKeeperStore:
    """One cluster's access to the nodes at an address; a `rpccluster.leading.store.Store`."""

    def __init__(
        self,
        address: StoreAddress,
        session_seconds: float,
        addresses: Sequence[str],
        remembered: bytes = b"",
        *,
        password: str = "",
        handler: Any = None,
    ) -> None:
        """``addresses`` are this cluster's. ``password`` is PASSWORD or USER:PASSWORD, ``handler`` one of kazoo's."""
        self._address = address
        self._asked_seconds = self.session_seconds = session_seconds
        self._data = json.dumps({"addresses": list(addresses)}).encode()
        self._own_address = addresses[0] if addresses else ""
        session, self._node = _decoded(remembered)
        self._acl, auth = _guard(password)
        self._pipe = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._is_made = False  # the nodes above are there
        self._is_lowest = False
        self._session: tuple[int, bytes] | None = session
        self._own: dict[str, bytes] = {}
        self._listed: set[str] = set()
        self._passes_until = 0.0  # monotonic seconds: it has resigned, and lets another one lead
        self._client = self._connect(session, auth, handler or SequentialThreadingHandler())

    def _connect(self, session: tuple[int, bytes] | None, auth: list[tuple[str, str]], handler: Any) -> KazooClient:
        retry = {"max_tries": -1, "delay": RETRY_DELAY, "max_delay": RETRY_DELAY_MAX, "sleep_func": handler.sleep_func}
        client = KazooClient(
            ",".join(self._address.hosts),
            timeout=self._asked_seconds,
            client_id=session,
            handler=handler,
            auth_data=auth,
            connection_retry=KazooRetry(**retry),
        )
        client.add_listener(self._note_state)
        self._watch_connecting(client, handler)
        client.start_async()
        return client

    def _watch_connecting(self, client: KazooClient, handler: Any) -> None:
        """Learn what session the server grants, which kazoo keeps to itself, and let no server take long to connect."""
        connect, create = client._connection._connect, handler.create_connection
        self._granted = handler.event_object()

        def connect_and_tell(*arguments: Any) -> tuple[float, float]:
            read_timeout, connect_timeout = connect(*arguments)
            self.session_seconds = round(read_timeout * 1.5) / 1000  # it waits two thirds of a session for an answer
            self._granted.set()
            return read_timeout, connect_timeout

        def create_soon(*arguments: Any, **options: Any) -> Any:
            return create(*arguments, **{**options, "timeout": min(options["timeout"], LONGEST_CONNECT)})

        client._connection._connect = connect_and_tell
        handler.create_connection = create_soon

    def _note_state(self, state: str) -> None:
        """Look again after each change of the connection; runs where kazoo calls."""
        if state == KazooState.LOST:
            self._is_lowest = False
        self._tell()

    def _tell(self, event: object = None) -> None:
        with contextlib.suppress(OSError):  # full, or closed
            os.write(self._pipe[1], b"\0")

    @property
    def remembered(self) -> bytes:
        if self._session is None:
            return b""
        number, password = self._session
        return json.dumps([number, password.hex(), self._node]).encode()

    # -- asking

    def _ask(self, asked: Any) -> Any:
        """Return the result of a call of kazoo's, within a part of a session."""
        seconds = self.session_seconds * WAIT_SHARE
        asked.wait(seconds)
        if not asked.ready():
            raise StoreDown(f"{self._address} has not answered for {seconds:g} seconds")
        return asked.get()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Tell an error of ZooKeeper's as `StoreDown`."""
        try:
            yield
        except NoAuthError:
            self._is_lowest = False
            raise StoreDown(
                f"this cluster may not use the nodes at {self._address}: found no permission, expected the password "
                "with which they were made (password_file)"
            ) from None
        except KazooException as error:
            self._is_lowest = False
            raise StoreDown(f"{self._address}: {type(error).__name__} {error}".rstrip()) from None

    def _await_connection(self) -> None:
        """Wait a moment for a session. Raises `StoreDown`, and goes on to connect."""
        client = self._client
        wait = max(LEAST_CONNECT, self._asked_seconds * CONNECT_SHARE)
        if not (self._granted.wait(wait) and client._live.wait(wait) and client.connected):
            raise StoreDown(f"cannot reach {self._address}")
        session = client.client_id
        if session is not None and session != self._session:
            if self._session is None or session[0] != self._session[0]:
                self._node, self._is_lowest, self._listed = "", False, set()
            self._session = session

    # -- the lead

    def attend(self) -> Standing:
        self._await_connection()
        with self._told():
            standing = self._stand()
            self._renew_members()
        return standing

    def _stand(self) -> Standing:
        if self._is_lowest:
            renewed = self._renew()
            if renewed is not None:
                return renewed
        self._make()
        children = sorted(filter(_IN_LINE.fullmatch, self._ask(self._client.get_children_async(self._lead()))))
        if time.monotonic() < self._passes_until and not children:
            return NOBODY
        if not self._node or self._node not in children:
            self._node = self._find(children)
            if not self._node and (time.monotonic() >= self._passes_until or children):
                path = self._ask(self._client.create_async(self._lead("n-"), self._data, self._acl, True, True))
                self._node = path.rpartition("/")[2]
            return self._stand_in(sorted({*children, *([self._node] if self._node else [])}))
        return self._stand_in(children)

    def _find(self, children: Sequence[str]) -> str:
        """Return the node of this session, whose making may have been answered to nobody."""
        for name in children:
            with contextlib.suppress(NoNodeError):
                _, found = self._ask(self._client.get_async(self._lead(name)))
                if self._session is not None and found.ephemeralOwner == self._session[0]:
                    return name
        return ""

    def _stand_in(self, children: Sequence[str]) -> Standing:
        """Return who leads of ``children``, in order; renew it if it is this cluster."""
        for name in children:
            if name == self._node:
                return self._renew() or NOBODY
            with contextlib.suppress(NoNodeError):
                data, found = self._ask(self._client.get_async(self._lead(name), self._tell))
                if not found.ephemeralOwner:
                    continue  # nobody's: it would lead for ever
                self._passes_until = 0.0
                return Standing(found.czxid, _first_address(data))
        return NOBODY

    def _renew(self) -> Standing | None:
        """Write to the node of this cluster; None if it is not there, or another session's."""
        asked_ns = boot_ns()
        self._is_lowest = False
        try:
            found = self._ask(self._client.set_async(self._lead(self._node), self._data))
        except NoNodeError:
            found = None
        if found is None or self._session is None or found.ephemeralOwner != self._session[0]:
            self._node = ""
            self._tell()
            return None
        self._is_lowest = True
        return Standing(found.czxid, self._own_address, asked_ns + int(self.session_seconds * LEASE_SHARE * 1e9))

    def resign(self) -> None:
        self._await_connection()
        self._passes_until = time.monotonic() + self.session_seconds
        with self._told():
            self._is_lowest = False
            if self._node:
                with contextlib.suppress(NoNodeError):
                    self._ask(self._client.delete_async(self._lead(self._node)))
                self._node = ""

    # -- the nodes

    def _lead(self, name: str = "") -> str:
        return f"{self._address.path}/lead/{name}" if name else f"{self._address.path}/lead"

    def _member(self, name: str = "") -> str:
        return f"{self._address.path}/members/{name}" if name else f"{self._address.path}/members"

    def _make(self) -> None:
        """Make the nodes above those of clusters."""
        if self._is_made:
            return
        for path in (self._lead(), self._member()):
            names = path.strip("/").split("/")
            for depth in range(1, len(names) + 1):
                is_ours = depth > len(names) - 2  # what is above PATH may be others', too
                above = "/" + "/".join(names[:depth])
                if self._ask(self._client.exists_async(above)) is None:
                    acl = self._acl if is_ours else OPEN_ACL_UNSAFE
                    with contextlib.suppress(NodeExistsError):
                        self._ask(self._client.create_async(above, b"", acl))
        self._is_made = True

    # -- the members

    def set_member(self, name: str, value: bytes) -> None:
        self._own[name] = value
        self._listed.discard(name)
        self._await_connection()
        with self._told():
            self._renew_members()

    def remove_member(self, name: str) -> None:
        self._own.pop(name, None)
        self._listed.discard(name)
        self._await_connection()
        with self._told(), contextlib.suppress(NoNodeError):
            self._ask(self._client.delete_async(self._member(name)))

    def members(self) -> dict[str, bytes]:
        self._await_connection()
        found: dict[str, bytes] = {}
        with self._told():
            self._make()
            for name in self._ask(self._client.get_children_async(self._member())):
                with contextlib.suppress(NoNodeError):
                    found[name] = self._ask(self._client.get_async(self._member(name)))[0]
        return found

    def _renew_members(self) -> None:
        """Make the nodes of this cluster's members that this session has not made yet."""
        for name in self._own.keys() - self._listed:
            self._make()
            path, value = self._member(name), self._own[name]
            try:
                self._ask(self._client.create_async(path, value, self._acl, True))
            except NodeExistsError:
                self._take_over(path, value)
            self._listed.add(name)

    def _take_over(self, path: str, value: bytes) -> None:
        """Give a member's node ``value``, and have it end with this session, not with an earlier one."""
        with contextlib.suppress(NoNodeError):
            found = self._ask(self._client.set_async(path, value))
            if self._session is not None and found.ephemeralOwner == self._session[0]:
                return
            self._ask(self._client.delete_async(path))
        self._ask(self._client.create_async(path, value, self._acl, True))

    # -- the end

    def leave(self) -> None:
        client = self._client
        try:
            client.stop()  # ends the session, with all its nodes
        except (client.handler.timeout_exception, KazooException) as error:
            raise StoreDown(f"{self._address} has not ended the session: {type(error).__name__}") from None
        finally:
            self._session, self._is_lowest = None, False
            self._close_pipe()

    def close(self) -> None:
        """Let go of the connection without a word: what kazoo calls to stop would end the session."""
        client, connection = self._client, self._client._connection
        client._stopped.set()
        with contextlib.suppress(OSError, AttributeError):
            connection._socket.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError, AttributeError):
            connection._write_sock.send(b"\0")
        connection.connection_stopped.wait(LONGEST_CONNECT)
        client.handler.stop()
        with contextlib.suppress(OSError, AttributeError):
            client.close()
        self._close_pipe()

    def _close_pipe(self) -> None:
        for descriptor in self._pipe:
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self._pipe = (-1, -1)

    def fileno(self) -> int:
        return self._pipe[0]

    def drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._pipe[0], 4096):
                pass


def _decoded(remembered: bytes) -> tuple[tuple[int, bytes] | None, str]:
    """Return the session and the node of what was remembered; none of what is none."""
    with contextlib.suppress(ValueError, TypeError):
        number, password, node = json.loads(remembered)
        return (int(number), bytes.fromhex(password)), str(node)
    return None, ""


def _guard(password: str) -> tuple[list[Any], list[tuple[str, str]]]:
    """Return who may use the nodes, and what proves it: all, or who knows the password, while everybody may read."""
    if not password:
        return OPEN_ACL_UNSAFE, []
    user, colon, word = password.partition(":")
    user, word = (user, word) if colon else (USER, password)
    return [make_digest_acl(user, word, all=True), make_acl("world", "anyone", read=True)], [
        ("digest", f"{user}:{word}")
    ]


def _first_address(data: bytes) -> str:
    with contextlib.suppress(ValueError, TypeError, KeyError, IndexError):
        return str(json.loads(data)["addresses"][0])
    return ""
