"""Who may ask: every combination of what a browser, a scraper or an attacker may send."""

from __future__ import annotations

import itertools
from http import HTTPStatus
from typing import Any

import pytest

from rpccluster.address import TCPAddress, UnixAddress
from rpccluster.config.sections.web import WebOptions
from rpccluster.services.web.http.guards import MOST_BODY_BYTES, Rules, check, owner_of_token
from rpccluster.services.web.http.messages import Request

BIND = (TCPAddress("127.0.0.1", 8080), TCPAddress("::1", 8080), UnixAddress("/run/page.sock"))
OPTIONS = WebOptions(bind=BIND, hosts=("status.example.org",))
RULES = Rules.of(OPTIONS, has_metrics=True, has_page=True)
ACTING = Rules.of(WebOptions(bind=BIND, actions=True), has_metrics=False, has_page=True)
ONLY_METRICS = Rules.of(None, has_metrics=True, has_page=False)

OWN = ["127.0.0.1:8080", "127.0.0.1", "[::1]:8080", "[::1]", "localhost", "LOCALHOST:1", "Status.Example.ORG:443"]
FOREIGN = [
    *("evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example", "127.0.0.2"),
    *("", ":8080", "localhost:", "localhost:99999999", "localhost@evil", "user@localhost", "localhost/evil", "[::2]"),
    *("::1", "[::1", "0x7f.1", "2130706433", "localhost.", "localhost localhost", "localhost,evil", "локалхост"),
]
PATHS = ["/", "/status.json", "/events", "/actions/reload", "/nowhere", "//metrics", "/metrics/", "/Metrics"]
FOREIGN_ORIGINS = [
    *("null", "http://evil.example", "https://evil.example", "http://localhost:3000", "http://127.0.0.1:8081", ""),
    *(
        "file://",
        "chrome-extension://abc",
        "http://127.0.0.1:8080.evil",
        "http://evil@127.0.0.1:8080",
        "127.0.0.1:8080",
    ),
]


def request(method: str = "GET", path: str = "/", body: bytes = b"", **headers: Any) -> Request:
    """A request with these headers, each once or as a list; ``None`` leaves one out."""
    given = {"host": "127.0.0.1:8080", **headers}
    values = {name: [value] if isinstance(value, str) else value for name, value in given.items() if value is not None}
    return Request(method, path, values, body)


def status(asked: Request, rules: Rules = RULES) -> int:
    """The status of a refusal; 0 if it may be served."""
    answer = check(asked, rules)
    return 0 if answer is None else answer.status.value


@pytest.mark.parametrize(("host", "path"), list(itertools.product(OWN, PATHS)))
def test_a_known_host_is_served(host: str, path: str) -> None:
    """Whatever its port, since a tunnel has another."""
    assert status(request(host=host, path=path)) == 0


@pytest.mark.parametrize(("host", "path"), list(itertools.product(FOREIGN, PATHS)))
def test_a_foreign_host_is_misdirected(host: str, path: str) -> None:
    """421, and the connection ends; nothing but /metrics itself is free of a host."""
    asked = request(host=host, path=path)
    answer = check(asked, RULES)
    assert answer is not None
    assert (answer.status, answer.closes) == (HTTPStatus.MISDIRECTED_REQUEST, True)
    assert status(request(host=host, path="/metrics")) == 0


@pytest.mark.parametrize("host", [None, [], ["127.0.0.1:8080", "evil.example"], ["localhost", "localhost"]])
def test_there_is_exactly_one_host(host: Any) -> None:
    """None, and two of them, are refused; a scraper needs none."""
    assert status(request(host=host)) == 421
    assert status(request(host=host, path="/metrics")) == 0
    assert status(request(host=host), ONLY_METRICS) == 0


@pytest.mark.parametrize(("origin", "path"), list(itertools.product(FOREIGN_ORIGINS, [*PATHS, "/metrics"])))
def test_a_foreign_origin_is_forbidden(origin: str, path: str) -> None:
    """403, for readings and actions, of the page and of the metrics."""
    assert status(request(origin=origin, path=path)) == 403
    assert status(request("POST", origin=origin, path=path), ACTING) == 403
    assert status(request(origin=origin, path=path), ONLY_METRICS) == 403


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://127.0.0.1:8080", "127.0.0.1:8080"),
        ("http://localhost:8080", "localhost:8080"),
        ("http://localhost:9000", "localhost:9000"),  # through a tunnel
        ("http://localhost", "localhost:80"),
        ("https://localhost", "localhost:443"),
        ("HTTP://LOCALHOST:8080", "localhost:8080"),
        ("http://[::1]:8080", "[::1]:8080"),
        ("https://status.example.org", "127.0.0.1:8080"),  # a proxy that rewrites the host
        ("https://status.example.org:8443", "status.example.org:8443"),
    ],
)
def test_the_pages_own_origin_is_served(origin: str, host: str) -> None:
    """The authority of the request itself, or a name of the option."""
    assert status(request(origin=origin, host=host)) == 0


def test_two_origins_are_forbidden() -> None:
    """Even if one is the page's own."""
    assert status(request(origin=["http://127.0.0.1:8080", "http://evil.example"])) == 403


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "get", "BREW"])
@pytest.mark.parametrize("path", [*PATHS, "/metrics"])
def test_another_method_is_not_allowed(method: str, path: str) -> None:
    """405 without actions, with what is allowed; with them POST alone passes here."""
    answer = check(request(method, path), RULES)
    assert answer is not None
    assert (answer.status.value, list(answer.headers)) == (405, [("Allow", "GET, HEAD")])
    assert status(request(method, path), ACTING) == (0 if method == "POST" else 405)
    assert status(request(method, path), ONLY_METRICS) == 405


@pytest.mark.parametrize("rules", [RULES, ACTING, ONLY_METRICS], ids=["reading", "acting", "metrics"])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
def test_a_large_body_is_refused_first(rules: Rules, method: str) -> None:
    """413 and a close; one of exactly the bound is not."""
    large = check(request(method, "/", bytes(MOST_BODY_BYTES + 1), host="evil.example"), rules)
    assert large is not None
    assert (large.status.value, large.closes) == (413, True)
    assert status(request("GET", "/", bytes(MOST_BODY_BYTES)), rules) == 0


TOKENS = [("alice", b"0123456789abcdef"), ("bob", b"fedcba9876543210"), ("bob", b"bobs second token")]


@pytest.mark.parametrize(
    ("authorization", "owner"),
    [
        ("Bearer 0123456789abcdef", "alice"),
        ("bearer fedcba9876543210", "bob"),
        ("Bearer bobs second token", "bob"),
        ("Bearer  0123456789abcdef ", "alice"),
        ("Basic 0123456789abcdef", None),
        ("0123456789abcdef", None),
        ("Bearer", None),
        ("Bearer ", None),
        ("Bearer 0123456789abcde", None),
        ("Bearer 0123456789abcdef0", None),
        ("Bearer ключ", None),
        ("", None),
    ],
)
def test_a_token_has_an_owner(authorization: str, owner: str | None) -> None:
    """By the whole token alone."""
    assert owner_of_token(request(authorization=authorization), TOKENS) == owner
    assert owner_of_token(request(authorization=authorization), []) is None


def test_without_a_header_there_is_no_owner() -> None:
    """None was sent, or two of them."""
    assert owner_of_token(request(), TOKENS) is None
    two = ["Bearer 0123456789abcdef", "Bearer fedcba9876543210"]
    assert owner_of_token(request(authorization=two), TOKENS) is None
