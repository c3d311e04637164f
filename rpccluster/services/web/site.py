"""What is answered at each path, once a request has passed the guards. Runs in the page's process.

The paths stand in one table. A listener serves those of its sections: ``/metrics``, or the page, or both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import NamedTuple

from rpccluster.log import escaped, logger
from rpccluster.metrics.families import Family
from rpccluster.rate_limit import LogLimiter, and_more
from rpccluster.services.web.actions import ACTIONS, PREFIX, Misread, question
from rpccluster.services.web.asking import Asking, MasterRefused, Overview
from rpccluster.services.web.exposition import negotiate, written
from rpccluster.services.web.gauges import families_of
from rpccluster.services.web.http.guards import METRICS_PATH, Rules, check, owner_of_token
from rpccluster.services.web.http.messages import Answer, Request, as_json, refused
from rpccluster.services.web.page.document import HEADERS, document
from rpccluster.services.web.viewing import Viewing

__all__ = ["Site"]

ACTION_SECONDS = 120.0
SCRAPE_WAITS_SECONDS = 1.0
HTML = "text/html; charset=utf-8"

_NOT_FOUND = refused(HTTPStatus.NOT_FOUND, "found nothing at this path: see / of [web], /metrics of [metrics]")
_NO_STATUS = refused(HTTPStatus.SERVICE_UNAVAILABLE, "the master does not answer")
_NO_TOKEN = refused(
    HTTPStatus.UNAUTHORIZED, "found no token of token_file", headers=[("WWW-Authenticate", "Bearer")], closes=True
)


class _Route(NamedTuple):
    """Whose a path is, and what answers there."""

    is_metrics: bool
    method: str
    answer: Callable[[Site, Request, Rules], Answer]


class Site:
    """The answers of one process."""

    def __init__(
        self,
        title: str,
        tokens: Sequence[tuple[str, bytes]],
        asking: Asking,
        overview: Overview,
        viewing: Viewing,
        count: Callable[..., list[Family]],
    ) -> None:
        """``tokens`` are those of the actions by name; ``count(has_leadership=…)`` returns the families of counters."""
        self._title = title
        self._tokens = tokens
        self._asking = asking
        self._overview = overview
        self._viewing = viewing
        self._count = count
        self._limiter = LogLimiter()

    def respond(self, request: Request, rules: Rules) -> Answer:
        """Answer a request that came to a listener with these ``rules``."""
        answer = check(request, rules)
        if answer is not None:
            self._tell(request, answer)
            return answer
        route = _ROUTES.get(request.path)
        if route is None or not (rules.has_metrics if route.is_metrics else rules.has_page):
            return _NOT_FOUND
        if request.method not in _METHODS[route.method]:
            allowed = ", ".join(_METHODS[route.method])
            return refused(HTTPStatus.METHOD_NOT_ALLOWED, f"expected {allowed}", headers=[("Allow", allowed)])
        return route.answer(self, request, rules)

    def _tell(self, request: Request, answer: Answer) -> None:
        """Log, now and then, that somebody asked who may not."""
        is_due, held_back = self._limiter.should_log(str(answer.status.value))
        if is_due:
            told = escaped(answer.body.decode().strip())
            logger.warning("Refused a request of %s: %s%s", request.peer, told, and_more(held_back))

    # -- readings

    def _metrics(self, request: Request, rules: Rules) -> Answer:
        known = self._overview.look(wait_seconds=SCRAPE_WAITS_SECONDS)
        has_leadership = known is not None and known.status["master"]["leadership"] is not None
        families = self._count(has_leadership=has_leadership)
        if known is not None:
            families = [*families, *families_of(known.status, known.pools, self._overview.age(known))]
        content_type = negotiate(request.header("accept"))
        return Answer(HTTPStatus.OK, written(families, content_type), content_type)

    def _status(self, request: Request, rules: Rules) -> Answer:
        known = self._overview.look()
        return _NO_STATUS if known is None else as_json(known.status)

    def _page(self, request: Request, rules: Rules) -> Answer:
        page = document(self._title, self._viewing.parts(), has_actions=rules.actions)
        return Answer(HTTPStatus.OK, page, HTML, HEADERS)

    def _events(self, request: Request, rules: Rules) -> Answer:
        return Answer(HTTPStatus.OK, b"", "text/event-stream; charset=utf-8", stream=self._viewing.events())

    # -- actions

    def _act(self, request: Request, rules: Rules) -> Answer:
        owner = owner_of_token(request, self._tokens)
        if owner is None:
            self._tell(request, _NO_TOKEN)
            return _NO_TOKEN
        name = request.path[len(PREFIX) :]
        try:
            method, params = question(name, request.body)
        except Misread as error:
            return refused(HTTPStatus.BAD_REQUEST, str(error))
        logger.info(
            "%s %s, asked at the page from %s by %s", method, escaped(str(params)), request.peer, escaped(owner)
        )
        try:
            return as_json({"result": self._asking.ask(method, params, ACTION_SECONDS)})
        except MasterRefused as error:
            return refused(HTTPStatus.CONFLICT, str(error))


_METHODS = {"GET": ("GET", "HEAD"), "POST": ("POST",)}
_ROUTES: Mapping[str, _Route] = {
    METRICS_PATH: _Route(True, "GET", Site._metrics),
    "/": _Route(False, "GET", Site._page),
    "/status.json": _Route(False, "GET", Site._status),
    "/events": _Route(False, "GET", Site._events),
    **{f"{PREFIX}{name}": _Route(False, "POST", Site._act) for name in ACTIONS},
}
