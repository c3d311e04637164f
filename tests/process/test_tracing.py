"""Spans of OpenTelemetry: one for each call of every kind, with its caller as parent; nothing without a provider."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from rpccluster import Client, RemoteError
from rpccluster.testing import RunningCluster, wait_until

pytest.importorskip("opentelemetry.sdk")

PROVIDER = """
import json, os
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

class Noting(SpanExporter):
    def export(self, spans):
        with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "spans"), "a") as file:
            for span in spans:
                file.write(json.dumps({
                    "name": span.name, "kind": span.kind.name, "trace": f"{span.context.trace_id:032x}",
                    "id": f"{span.context.span_id:016x}", "parent": span.parent and f"{span.parent.span_id:016x}",
                    "status": span.status.status_code.name, "told": span.status.description,
                    "attributes": dict(span.attributes), "seconds": (span.end_time - span.start_time) / 1e9,
                }) + "\\n")
        return SpanExportResult.SUCCESS

def begin():
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(Noting()))
    trace.set_tracer_provider(provider)
"""
SERVICE = """
import asyncio, os, sys, time
import gevent
from rpccluster import Client, Later, Service, current_call, rpc

def here():
    from opentelemetry import trace
    return f"{trace.get_current_span().get_span_context().span_id:016x}"

class Traced(Service):
    def worker_started(self, worker):
        if TRACED:
            import spans_of_it
            spans_of_it.begin()

    def plain(self):
        time.sleep(0.01)
        return here()

    @rpc(thread=True)
    def in_thread(self):
        return here()

    async def on_loop(self):
        await asyncio.sleep(0.01)
        return here()

    @rpc(later=True)
    def later(self):
        answer, span = Later(), here()
        gevent.spawn_later(0.1, answer.reply, span)
        return answer

    @rpc(pool="side")
    def in_pool(self, seconds):
        time.sleep(seconds)

    def fail(self):
        raise LookupError("no such thing")

    def outer(self, address, depth):
        with Client(address) as client:
            client.call("plain")
            return [here(), client.call("plain") if depth == 1 else client.call("outer", address, depth - 1)]

    def imported(self):
        return "opentelemetry" in sys.modules

    def trace(self):
        return current_call().trace
"""
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
MakeCluster = Callable[..., RunningCluster]


def started(make_cluster: MakeCluster, engine: str, *, is_traced: bool) -> RunningCluster:
    """A cluster whose service sets a provider, or does not."""
    sections = {"pool:side": {"processes": 1, "targets": "traced"}}
    running = make_cluster(service="traced:Traced", number_workers=1, engine=engine, sections=sections)
    running.write_module("spans_of_it", PROVIDER)
    running.write_module("traced", f"TRACED = {is_traced}\n{SERVICE}")
    return running.start()


def spans(running: RunningCluster) -> dict[str, dict[str, Any]]:
    """The spans that have ended, by id."""
    path = running.folder / "spans"
    told = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return {span["id"]: span for span in told}


def traced_call(client: Client, method: str, *params: Any, trace: str = f"00-{TRACE}-{PARENT}-01") -> Any:
    """Call ``method`` as part of a trace."""
    return client.call("rpc.call", method, list(params), {"timeout": 20, "trace": trace})


@pytest.mark.parametrize("engine", ["compiled", "python"])
def test_each_call_has_a_span_with_its_caller_as_parent(make_cluster: MakeCluster, engine: str) -> None:
    """In greenlets, threads, coroutines, and of one that is answered later; it is the current one in the method."""
    running = started(make_cluster, engine, is_traced=True)
    with running.client() as client:
        ids = {method: traced_call(client, method) for method in ("plain", "in_thread", "on_loop", "later")}
        root = client.call("plain", timeout=None)
        with pytest.raises(RemoteError, match="no such thing"):
            traced_call(client, "fail")
        traced_call(client, "plain", trace="nonsense")
        traced_call(client, "in_pool", 0.1)
    found = wait_until(lambda: len(spans(running)) >= 8 and spans(running), what="the spans")
    for method, id_ in ids.items():
        span = found[id_]
        assert (span["name"], span["kind"], span["trace"], span["parent"]) == (method, "SERVER", TRACE, PARENT)
        assert span["status"] == "UNSET"
        assert span["attributes"]["rpc.method"] == method
        assert span["attributes"]["client.address"].startswith("127.0.0.1:")
    assert found[ids["later"]]["seconds"] > 0.09
    assert found[root]["parent"] is None and found[root]["trace"] != TRACE
    [failed] = [span for span in found.values() if span["name"] == "fail"]
    assert (failed["status"], failed["told"], failed["parent"]) == ("ERROR", "LookupError: no such thing", PARENT)
    [in_pool] = [span for span in found.values() if span["name"] == "in_pool"]
    assert (in_pool["parent"], in_pool["seconds"] > 0.09) == (PARENT, True)
    [other] = [span for span in found.values() if span["parent"] is None and span["id"] != root]
    assert other["name"] == "plain"


def test_a_client_in_a_method_passes_the_span_on(make_cluster: MakeCluster) -> None:
    """From method to method it is one trace; each span's parent is the span of the method that has called."""
    running = started(make_cluster, "compiled", is_traced=True)
    with running.client() as client:
        first, [second, third] = traced_call(client, "outer", running.address, 2)
    found = wait_until(lambda: {first, second, third} <= spans(running).keys() and spans(running), what="the spans")
    assert [found[each]["parent"] for each in (first, second, third)] == [PARENT, first, second]
    assert {found[each]["trace"] for each in (first, second, third)} == {TRACE}


def test_without_a_provider_nothing_is_imported(make_cluster: MakeCluster) -> None:
    """Though OpenTelemetry is installed; the traceparent is there all the same, and clients pass it on as it came."""
    running = started(make_cluster, "compiled", is_traced=False)
    with running.client() as client:
        assert client.call("imported") is False
        assert traced_call(client, "trace") == f"00-{TRACE}-{PARENT}-01"
    assert spans(running) == {}
