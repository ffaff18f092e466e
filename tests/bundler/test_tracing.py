"""An operation's life as a trace."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from bundler import tracing
from bundler.economics import Economics
from bundler.events import Event, Kind
from bundler.tracing import Traces, open_traces
from contracts.errors import BadInput, RpcError, SetupError
from contracts.types import keccak, to_hex
from tests.bundler.rig import Chain, serving, settings_for

OP, OTHER, TX = keccak(b"an operation"), keccak(b"another"), keccak(b"a transaction")
SENDER = b"\x01" * 20


class Rig:
    """Traces into memory, with a clock that moves a second at every event."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self._now_ns = 1_700_000_000 * 10**9
        self.traces = Traces(self.exporter, at_once=True, clock_ns=lambda: self._now_ns)

    def note(self, kind: Kind, op_hashes: tuple[bytes, ...] = (OP,), **fields: Any) -> None:
        self._now_ns += 10**9
        self.traces.note(Event(kind, op_hashes, **fields))

    def spans(self) -> dict[str, list[ReadableSpan]]:
        found: dict[str, list[ReadableSpan]] = {}
        for span in self.exporter.get_finished_spans():
            found.setdefault(span.name, []).append(span)
        return found


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def seconds(span: ReadableSpan) -> float:
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) / 1e9


def test_one_trace_holds_validation_bundle_and_inclusion() -> None:
    rig = Rig()
    rig.note(Kind.VALIDATED, reason="first", detail="cheap", seconds=0.5)
    rig.note(Kind.ACCEPTED, sender=SENDER, seconds=2.0)
    rig.note(Kind.VALIDATED, reason="second", detail="full", seconds=0.25)
    rig.note(Kind.SENT, (OP, OTHER), tx_hash=TX)
    rig.note(Kind.RESENT, (OP, OTHER), tx_hash=TX)
    rig.note(Kind.INCLUDED, (OP,), tx_hash=TX, block_number=7, economics=Economics(1, 1, 1))
    found = rig.spans()
    (root,), (bundle,) = found["user operation"], found["bundle"]
    assert {span.context.trace_id for spans in found.values() for span in spans} == {int.from_bytes(OP[:16])}
    assert all(
        span.parent is not None and span.parent.span_id == root.context.span_id for span in (bundle, *found["validate"])
    )
    ways = [(attributes(s)["validation.turn"], attributes(s)["validation.way"], seconds(s)) for s in found["validate"]]
    assert ways == [("first", "cheap", 0.5), ("second", "full", 0.25)]
    assert seconds(root) == 2.0 + 4.0  # from its arrival
    assert seconds(bundle) == 2.0
    assert [event.name for event in root.events] == ["accepted", "sent", "resent", "included"]
    shown = attributes(root)
    assert (shown["userop.hash"], shown["userop.outcome"], shown["bundle.block"]) == (to_hex(OP), "included", 7)
    assert root.status.status_code is StatusCode.UNSET


def test_a_drop_is_an_error_with_its_reason_and_a_refusal_a_trace_of_its_own() -> None:
    rig = Rig()
    rig.note(Kind.ACCEPTED)
    rig.note(Kind.DROPPED, reason="AA25", detail="AA25 invalid account nonce")
    rig.note(Kind.REFUSED, (), sender=SENDER, reason="OP-011", detail="banned opcode", seconds=3.0)
    dropped, refused = rig.spans()["user operation"]
    assert attributes(dropped)["userop.reason"] == "AA25"
    assert (dropped.status.status_code, dropped.status.description) == (StatusCode.ERROR, "AA25 invalid account nonce")
    assert attributes(refused)["userop.reason"] == "OP-011"
    assert seconds(refused) == 3.0
    assert refused.context.trace_id != dropped.context.trace_id


@pytest.mark.parametrize("kind", [Kind.REVERTED, Kind.LOST])
def test_a_bundle_that_fails_ends_and_the_operation_goes_on(kind: Kind) -> None:
    rig = Rig()
    rig.note(Kind.ACCEPTED)
    rig.note(Kind.SENT, tx_hash=TX)
    rig.note(kind, tx_hash=TX)
    assert set(rig.spans()) == {"bundle"}
    rig.note(Kind.SENT, tx_hash=TX)
    rig.note(Kind.INCLUDED, tx_hash=TX)
    first, second = rig.spans()["bundle"]
    assert [s.status.status_code for s in (first, second)] == [StatusCode.ERROR, StatusCode.UNSET]


def test_what_a_later_process_or_a_reorganisation_takes_up_is_the_same_trace() -> None:
    rig = Rig()
    rig.note(Kind.SENT, tx_hash=TX)
    rig.note(Kind.INCLUDED, tx_hash=TX)
    rig.note(Kind.REORGANISED, tx_hash=TX)
    rig.note(Kind.INCLUDED, tx_hash=TX)
    first, again = rig.spans()["user operation"]
    assert first.context.trace_id == again.context.trace_id == int.from_bytes(OP[:16])
    assert attributes(first)["userop.resumed"] is attributes(again)["userop.resumed"] is True


def test_memory_is_bounded_by_what_is_followed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "MOST_OPEN", 3)
    rig = Rig()
    for n in range(5):
        rig.note(Kind.ACCEPTED, (keccak(bytes([n])),))
    assert len(rig.spans()["user operation"]) == 2
    rig.traces.stop()
    assert len(rig.spans()["user operation"]) == 5


def test_without_the_extra_a_start_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_traces("none") is None
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(SetupError, match=r"seawall\[otel\]"):
        open_traces("otlp")


@asynccontextmanager
async def collector() -> AsyncIterator[tuple[str, list[ExportTraceServiceRequest]]]:
    """An OTLP collector."""
    received: list[ExportTraceServiceRequest] = []

    async def take(request: web.Request) -> web.Response:
        received.append(ExportTraceServiceRequest.FromString(await request.read()))
        return web.Response(content_type="application/x-protobuf")

    app = web.Application()
    app.router.add_post("/v1/traces", take)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", received
    finally:
        await runner.cleanup()


async def test_a_bundler_sends_its_operations_lives_to_a_collector(
    own_chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with collector() as (url, received):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
        settings = settings_for(own_chain, tmp_path, traces="otlp")
        async with serving(settings) as client:
            account = await own_chain.account()
            op_hash = await client.send(await account.operation())
            await client.included(op_hash)
            with pytest.raises(RpcError):
                await client.send(replace(await account.operation(), signature=b"\x01" * 65))
            await client.settled()
        spans = [s for r in received for one in r.resource_spans for scope in one.scope_spans for s in scope.spans]
    own = [span for span in spans if span.trace_id == op_hash[:16]]
    assert {span.name for span in own} == {"user operation", "validate", "bundle"}
    assert len([span for span in spans if span.name == "user operation"]) == 2
    with pytest.raises(BadInput, match="none or otlp"):
        replace(settings, traces="jaeger")
