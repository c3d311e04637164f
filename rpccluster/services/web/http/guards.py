"""Who may ask: the checks that a request passes before anything is done for it. Pure; runs in the page's process.

A browser that has some other page open is the danger: its scripts can send requests to any address, the loopback too. A
name that an attacker lets stand for this address is not among the known hosts (DNS rebinding). A request of a foreign
page has a foreign ``Origin``, or ``null`` from a sandbox or a file. Whatever changes something needs a token besides.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from rpccluster.address import BindAddress, TCPAddress
from rpccluster.config.sections.web import WebOptions
from rpccluster.services.web.http.messages import Answer, Request, refused

__all__ = ["MOST_BODY_BYTES", "TOO_LARGE", "Rules", "check", "owner_of_token"]

MOST_BODY_BYTES = 64 << 10
METRICS_PATH = "/metrics"

TOO_LARGE = refused(
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"found a body of more than {MOST_BODY_BYTES} bytes", closes=True
)

_AUTHORITY = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?")
_ORIGIN = re.compile(r"(https?)://(.+)")
_PORTS = {"http": "80", "https": "443"}


@dataclass(frozen=True)
class Rules:
    """What requests at one listener may ask for.

    ``hosts`` are the names in lower case under which the page is known, ``named`` those of the option ``hosts``. A
    listener that is not ``has_page`` serves ``/metrics`` alone.
    """

    hosts: frozenset[str] = frozenset({"localhost"})
    named: frozenset[str] = frozenset()
    has_metrics: bool = True
    has_page: bool = True
    actions: bool = False

    @classmethod
    def of(cls, options: WebOptions | None, bound: str = "", *, has_metrics: bool, has_page: bool) -> Rules:
        """Return the rules of a listener, by the section ``[web]``; None if there is none.

        ``bound`` is the host that it is bound to, for which ``bind`` may have a name; empty for a Unix path.
        """
        bind: Sequence[BindAddress] = options.bind if options else ()
        hosts = [bound, *(each.host for each in bind if isinstance(each, TCPAddress))]
        named = frozenset(options.hosts if options else ())
        known = frozenset({"localhost", *(_bracketed(host) for host in hosts if host), *named})
        return cls(known, named, has_metrics, has_page, bool(options and options.actions))


def _bracketed(host: str) -> str:
    return f"[{host}]".lower() if ":" in host else host.lower()


def check(request: Request, rules: Rules) -> Answer | None:
    """Return the answer to a request that may not be served; None if it may."""
    found = (guard(request, rules) for guard in _GUARDS)
    return next((answer for answer in found if answer is not None), None)


def _size(request: Request, rules: Rules) -> Answer | None:
    return TOO_LARGE if len(request.body) > MOST_BODY_BYTES else None


def _host(request: Request, rules: Rules) -> Answer | None:
    if request.path == METRICS_PATH or not rules.has_page:
        return None
    found = request.headers.get("host", ())
    if len(found) == 1 and _name_of(found[0]) in rules.hosts:
        return None
    shown = ", ".join(found) or "none"
    reason = f"found the host {shown!r}, expected the address of bind, localhost, or one of hosts in [web]"
    return refused(HTTPStatus.MISDIRECTED_REQUEST, reason, closes=True)


def _origin(request: Request, rules: Rules) -> Answer | None:
    found = request.headers.get("origin", ())
    if not found or (len(found) == 1 and _is_own(found[0], request.header("host"), rules)):
        return None
    return refused(HTTPStatus.FORBIDDEN, "found a foreign origin, expected a request of this page", closes=True)


def _method(request: Request, rules: Rules) -> Answer | None:
    allowed = ("GET", "HEAD", "POST") if rules.actions and rules.has_page else ("GET", "HEAD")
    if request.method in allowed:
        return None
    reason = f"found the method {request.method}, expected {' or '.join(allowed)}"
    return refused(HTTPStatus.METHOD_NOT_ALLOWED, reason, headers=[("Allow", ", ".join(allowed))])


#: In this order: the first that refuses is the answer.
_GUARDS: tuple[Callable[[Request, Rules], Answer | None], ...] = (_size, _host, _origin, _method)


def _name_of(authority: str) -> str:
    """Return the host of ``HOST:PORT`` in lower case, whatever its port: a tunnel may have another."""
    match = _AUTHORITY.fullmatch(authority.strip())
    return match[1].lower() if match else ""


def _is_own(origin: str, host: str, rules: Rules) -> bool:
    """Return whether ``origin`` is the page that was asked for at ``host``, or has a name of the option."""
    match = _ORIGIN.fullmatch(origin.strip().lower())
    if match is None:
        return False
    if _name_of(match[2]) in rules.named:
        return True
    port = _PORTS[match[1]]
    return bool(host) and _name_of(host) in rules.hosts and _full(match[2], port) == _full(host.lower(), port)


def _full(authority: str, port: str) -> tuple[str, str]:
    match = _AUTHORITY.fullmatch(authority.strip())
    return (match[1], match[2] or port) if match else ("", "")


def owner_of_token(request: Request, tokens: Sequence[tuple[str, bytes]]) -> str | None:
    """Return the name of whose token the request bears; None if it bears none of ``tokens``. Takes the same time."""
    scheme, _, given = request.header("authorization").partition(" ")
    sent = given.strip().encode("latin-1", "replace")
    fits = [name for name, token in tokens if hmac.compare_digest(sent, token)]
    return fits[0] if fits and scheme.lower() == "bearer" else None
