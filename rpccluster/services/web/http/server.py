"""Serves HTTP at the listeners that the master holds: gevent.pywsgi parses, and this bounds what a client may cost.

A request line comes within `IDLE_SECONDS` of the last answer, a head within `HEAD_SECONDS` and `MOST_HEAD_BYTES`, and
an answer is read within `READ_SECONDS`. A connection that keeps none of these ends. Runs in the page's process.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import gevent
import gevent.socket
from gevent.pywsgi import Input, WSGIHandler
from gevent.server import StreamServer

from rpccluster.log import escaped, logger
from rpccluster.rate_limit import LogLimiter, and_more
from rpccluster.services.web.http.guards import MOST_BODY_BYTES, TOO_LARGE
from rpccluster.services.web.http.messages import Answer, Request, refused
from rpccluster.services.web.http.seats import Seats

__all__ = ["HTTPServer"]

IDLE_SECONDS = 30.0
HEAD_SECONDS = 10.0
READ_SECONDS = 20.0
LINGER_SECONDS = 1.0
MOST_HEAD_BYTES = 16 << 10
MOST_LINGERED_BYTES = 4 << 20

_BAD = refused(HTTPStatus.BAD_REQUEST, "found no request of HTTP/1.1 or HTTP/1.0", closes=True)
_LATE = refused(HTTPStatus.REQUEST_TIMEOUT, "found half a request", closes=True)
_BROKEN = refused(HTTPStatus.INTERNAL_SERVER_ERROR, "the page has failed; the log says why", closes=True)

Respond = Callable[[Request], Answer]


class HTTPServer(StreamServer):
    """Serves one listener; ``respond`` makes the answers."""

    def __init__(self, listener: socket.socket, respond: Respond, seats: Seats) -> None:
        """Takes over the descriptor of ``listener``."""
        self.respond = respond
        self.seats = seats
        self.is_ending = False
        self.limiter = LogLimiter()
        descriptor = listener.detach()
        own = gevent.socket.socket(listener.family, listener.type, fileno=descriptor)
        own.setblocking(False)
        super().__init__(own)

    def handle(self, sock: Any, address: Any) -> None:
        """Serve one connection until it ends."""
        with self.seats.taken():
            _Handler(sock, address, self).handle()

    def stop_accepting_more(self) -> None:
        """Accept nothing more, and let each connection end with its answer; its successor has the same socket."""
        self.is_ending = True
        self.close()


class _Bounded:
    """Reads the lines of a head, up to a number of bytes in all."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._left = MOST_HEAD_BYTES

    def readline(self, size: int = -1) -> bytes:
        line: bytes = self._file.readline(min(size, self._left) if size >= 0 else self._left)
        self._left -= len(line)
        if self._left <= 0:
            raise ValueError("the head is too long")
        if b"\r" in line[:-2]:
            raise ValueError("a line of the head holds a CR, at which some parsers end it")
        return line


class _Handler(WSGIHandler):
    """One connection. Everything beyond the parsing of a head is its own, and no WSGI application is called."""

    server: HTTPServer

    def MessageClass(self, file: Any, *arguments: Any) -> Any:
        """Parse a head. Raises ValueError for one that a proxy in front may read in another way."""
        head = super().MessageClass(_Bounded(file), *arguments)
        is_cut = head.defects or head.get_payload()  # at the first line that is no header
        has_two_lengths = "Transfer-Encoding" in head and "Content-Length" in head
        if is_cut or has_two_lengths or any("\n" in value for value in head.values()):
            raise ValueError("the head is ambiguous")
        return head

    def handle_one_request(self) -> bool | None:
        """Serve one request. Returns True if another one may follow on the connection."""
        found = self._read()
        if found is None:
            return None
        self.server.seats.note_life()
        answer = found if isinstance(found, Answer) else self._respond(found)
        keeps = not (self.close_connection or answer.closes or answer.stream is not None or self.server.is_ending)
        try:
            self._send(answer, keeps=keeps)
        except (OSError, gevent.Timeout):
            return None
        self.server.seats.note_life(rests=keeps)
        if answer.closes:
            self._linger()
        return keeps or None

    # -- reading

    def _read(self) -> Request | Answer | None:
        """Return the next request, or the answer to what is none; None if there is no more."""
        self.close_connection = True
        line = ""
        with contextlib.suppress(OSError), gevent.Timeout(IDLE_SECONDS, False):
            line = self.read_requestline()
        if not line.strip():
            return None
        with gevent.Timeout(HEAD_SECONDS, False):
            try:
                return self._read_rest(line)
            except OSError:
                return None
            except Exception:  # pywsgi and http.client raise many kinds for what a client sends
                return _BAD
        return _LATE

    def _read_rest(self, line: str) -> Request | Answer:
        self.read_request(line)
        if self.request_version not in ("HTTP/1.0", "HTTP/1.1"):
            return _BAD
        headers: dict[str, list[str]] = {}
        for name, value in self.headers.items():
            headers.setdefault(name.lower(), []).append(value.strip())
        body = self._read_body(headers)
        if isinstance(body, Answer):
            return body
        path = self.path.partition("?")[0]
        return Request(self.command, path, headers, body, _peer(self.client_address))

    def _read_body(self, headers: dict[str, list[str]]) -> bytes | Answer:
        coding, lengths = headers.get("transfer-encoding", []), headers.get("content-length", [])
        if coding and coding != ["chunked"]:
            return _BAD
        if not coding and not lengths:
            return b""
        if len(lengths) > 1 or not all(each.isascii() and each.isdigit() for each in lengths):
            return _BAD
        if not coding and int(lengths[0]) > MOST_BODY_BYTES:
            return TOO_LARGE
        expects = self.socket if headers.get("expect") == ["100-continue"] else None
        length = None if coding else int(lengths[0])
        reader = Input(self.rfile, length, socket=expects, chunked_input=bool(coding))
        body: bytes = reader.read(MOST_BODY_BYTES + 1)
        return TOO_LARGE if len(body) > MOST_BODY_BYTES else body

    # -- answering

    def _respond(self, request: Request) -> Answer:
        try:
            return self.server.respond(request)
        except Exception:
            is_due, held_back = self.server.limiter.should_log("failed")
            if is_due:
                path = escaped(request.path)
                logger.error("The page cannot answer %s%s", path, and_more(held_back), exc_info=True)
            return _BROKEN

    def _send(self, answer: Answer, *, keeps: bool) -> None:
        has_body = self.command != "HEAD"
        with gevent.Timeout(READ_SECONDS):
            self.socket.sendall(answer.head(keeps=keeps) + (answer.body if has_body else b""))
        for chunk in answer.stream or () if has_body else ():
            if self.server.is_ending:
                return
            with gevent.Timeout(READ_SECONDS):
                self.socket.sendall(chunk)
            self.server.seats.note_life()

    def _linger(self) -> None:
        """Read on for a moment what was refused: the end of a connection with unread bytes would lose the answer."""
        with contextlib.suppress(OSError), gevent.Timeout(LINGER_SECONDS, False):
            self.socket.shutdown(socket.SHUT_WR)
            left = MOST_LINGERED_BYTES
            while left > 0:
                received = len(self.socket.recv(65536))
                if not received:
                    return
                left -= received


def _peer(address: Any) -> str:
    return str(address[0]) if isinstance(address, tuple) else "a Unix socket"
