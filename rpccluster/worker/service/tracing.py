"""Spans of OpenTelemetry: one for each call, with the caller's as its parent. Runs in the worker.

Nothing here imports OpenTelemetry. A service whose calls are to be traced has imported it, and has set a tracer
provider by the end of its ``worker_started``; without one no method is wrapped, and no call pays.

The span of a plain method, of one in a thread, and of a coroutine lasts as long as the method runs, and is the current
one in it. A call that is answered later, or by a pool, has its span until it is answered.
"""

from __future__ import annotations

import functools
import sys
from typing import Any, Callable

from rpccluster.failure import error_text
from rpccluster.service import find_call, find_traces_by
from rpccluster.version import __version__
from rpccluster.worker.service.later import HeldBack, Parked

__all__ = ["Tracing", "tracing"]

_API = "opentelemetry.trace"
_SAMPLED = 0x01
_PARTS = 4  # of a traceparent: version, trace, parent, flags


def tracing() -> Tracing | None:
    """Return what makes spans, if the service has set a tracer provider."""
    api = sys.modules.get(_API)
    if api is None:
        return None
    provider = api.get_tracer_provider()
    if isinstance(provider, (api.ProxyTracerProvider, api.NoOpTracerProvider)):
        return None
    return Tracing(api, provider.get_tracer("rpccluster", __version__))


class Tracing:
    """Wraps methods in spans, and lets clients inside of them pass on the current one."""

    def __init__(self, api: Any, tracer: Any) -> None:
        """``api`` is the module `opentelemetry.trace`."""
        from opentelemetry import context  # the service has it

        self._api = api
        self._context = context
        self._tracer = tracer
        find_traces_by(self._trace_here)

    def _trace_here(self) -> str | None:
        """Return the traceparent of the current span; without one that of the call."""
        span = self._api.get_current_span().get_span_context()
        if span.is_valid:
            return f"00-{span.trace_id:032x}-{span.span_id:016x}-{int(span.trace_flags):02x}"
        call = find_call()
        trace: str | None = None if call is None else call.trace
        return trace

    def wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``function``, which begins or runs calls of the method ``name`` where that is to have a span."""

        @functools.wraps(function)
        def runs(*params: Any) -> Any:
            span, token = self._begin(name)
            try:
                result = function(*params)
            except Parked as parked:
                parked.tell_too(functools.partial(self._end_later, span))
                raise
            except HeldBack:  # it begins later, with a span of its own
                raise
            except BaseException as error:
                self._fail(span, error_text(error))
                raise
            else:
                span.end()
                return result
            finally:
                self._context.detach(token)

        return runs

    def wrap_coroutine(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``function``, whose calls return coroutines."""

        @functools.wraps(function)
        async def runs(*params: Any) -> Any:
            span, token = self._begin(name)
            try:
                result = await function(*params)
            except BaseException as error:
                self._fail(span, error_text(error))
                raise
            else:
                span.end()
                return result
            finally:
                self._context.detach(token)

        return runs

    def _begin(self, name: str) -> tuple[Any, Any]:
        """Start the span of the call that runs here; make it the current one."""
        call = find_call()
        attributes = {"rpc.system": "msgpack_rpc", "rpc.method": name}
        parent = None
        if call is not None:
            attributes["client.address"] = call.peer
            parent = self._parent(call.trace)
        span = self._tracer.start_span(name, parent, self._api.SpanKind.SERVER, attributes)
        return span, self._context.attach(self._api.set_span_in_context(span, parent))

    def _parent(self, trace: str | None) -> Any:
        """Return the context with the span of the caller; an empty one if it has told none."""
        empty = self._context.Context()
        if trace is None:
            return empty
        _, trace_id, span_id, flags = trace.split("-")[:_PARTS]
        sampled = self._api.TraceFlags(int(flags, 16) & _SAMPLED)
        told = self._api.SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=sampled)
        return self._api.set_span_in_context(self._api.NonRecordingSpan(told), empty)

    def _fail(self, span: Any, text: str) -> None:
        span.set_status(self._api.Status(self._api.StatusCode.ERROR, text))
        span.end()

    def _end_later(self, span: Any, peer: str, method: str, outcome: str) -> None:
        if outcome == "ok":
            span.end()
        else:
            self._fail(span, outcome)
