"""One operation's life as an OpenTelemetry trace: received, validated, waiting, bundled, in a block or given up.

The trace's id is the first half of the operation's hash, so that who knows the hash finds the trace, and a process that takes the operation
up later adds to the same one. Spans: `user operation` from arrival to its end; in it `validate` (attributes turn and way) and `bundle`.
Off by default; needs the extra `otel`. Where spans go is OpenTelemetry's own matter (OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_TRACES_SAMPLER, ...).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bundler.events import Event, Kind
from contracts.errors import SetupError
from contracts.types import Hash32, checksum, to_hex

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span

MOST_OPEN = 10_000
"""Operations that are followed at once; older ones are ended where they are."""
_MOST_VALIDATED = 1_000
_ENDS = frozenset({Kind.INCLUDED, Kind.FOREIGN, Kind.DROPPED, Kind.REPLACED})


@dataclass(slots=True)
class _Life:
    """The open spans of one operation."""

    root: Span
    bundle: Span | None = None


class Traces:
    """A listener of `Events`. `clock_ns` is Unix time."""

    def __init__(self, exporter: SpanExporter, *, at_once: bool, clock_ns: Callable[[], int] = time.time_ns) -> None:
        """`at_once` exports every span in the caller's thread: for tests."""
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
        from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

        class Ids(RandomIdGenerator):
            """Random, but for the trace of an operation."""

            wanted: int | None = None

            def generate_trace_id(self) -> int:
                return super().generate_trace_id() if self.wanted is None else self.wanted

        self._ids = Ids()
        resource = Resource.create({SERVICE_NAME: "seawall-bundler"})
        self._provider = TracerProvider(resource=resource, id_generator=self._ids, shutdown_on_exit=False)
        processor = SimpleSpanProcessor(exporter) if at_once else BatchSpanProcessor(exporter)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("seawall.bundler")
        self._clock_ns = clock_ns
        self._lives: dict[Hash32, _Life] = {}
        self._validated: dict[Hash32, tuple[Event, int]] = {}

    def note(self, event: Event) -> None:
        """Follow one event."""
        now_ns = self._clock_ns()
        if event.kind is Kind.VALIDATED:
            self._note_validation(event, now_ns)
        elif event.kind is Kind.REFUSED:
            self._note_refusal(event, now_ns)
        else:
            for op_hash in event.op_hashes:
                if event.elsewhere and op_hash not in self._lives:
                    continue
                self._note_operation(op_hash, event, now_ns)

    def stop(self) -> None:
        """End what is open and export it; blocks until that is done or given up."""
        for op_hash in list(self._lives):
            self._leave(op_hash, self._clock_ns(), "the process stops")
        self._provider.shutdown()

    def _start(self, name: str, start_ns: int, parent: Span | None, attributes: dict[str, Any]) -> Span:
        from opentelemetry.trace import set_span_in_context

        context = None if parent is None else set_span_in_context(parent)
        return self._tracer.start_span(name, context, start_time=start_ns, attributes=attributes)

    def _life(self, op_hash: Hash32, start_ns: int, event: Event) -> _Life:
        """The operation's, begun now if it is not followed yet."""
        from opentelemetry.context import Context

        life = self._lives.get(op_hash)
        if life is not None:
            return life
        if len(self._lives) >= MOST_OPEN:
            self._leave(next(iter(self._lives)), start_ns, "too many operations are followed")
        self._ids.wanted = int.from_bytes(op_hash[:16])
        try:
            root = self._tracer.start_span("user operation", Context(), start_time=start_ns)
        finally:
            self._ids.wanted = None
        root.set_attribute("userop.hash", to_hex(op_hash))
        root.set_attribute("userop.resumed", event.kind is not Kind.ACCEPTED)
        if event.sender is not None:
            root.set_attribute("userop.sender", checksum(event.sender))
        life = self._lives[op_hash] = _Life(root)
        return life

    def _note_validation(self, event: Event, now_ns: int) -> None:
        (op_hash,) = event.op_hashes
        life = self._lives.get(op_hash)
        if life is not None:
            self._add_validation(life, event, now_ns)
        else:  # its acceptance, or refusal, follows
            if len(self._validated) >= _MOST_VALIDATED:
                self._validated.pop(next(iter(self._validated)))
            self._validated[op_hash] = event, now_ns

    def _add_validation(self, life: _Life, event: Event, end_ns: int) -> None:
        from opentelemetry.trace import Status, StatusCode

        attributes = {"validation.turn": event.reason, "validation.way": event.detail}
        span = self._start("validate", end_ns - _nanoseconds(event.seconds), life.root, attributes)
        if event.detail == "refused":
            span.set_status(Status(StatusCode.ERROR))
        span.end(end_ns)

    def _note_refusal(self, event: Event, now_ns: int) -> None:
        from opentelemetry.trace import Status, StatusCode

        attributes = {"userop.outcome": "refused", "userop.reason": event.reason}
        if event.sender is not None:
            attributes["userop.sender"] = checksum(event.sender)
        span = self._start("user operation", now_ns - _nanoseconds(event.seconds), None, attributes)
        span.set_status(Status(StatusCode.ERROR, event.detail))
        span.end(now_ns)

    def _note_operation(self, op_hash: Hash32, event: Event, now_ns: int) -> None:
        life = self._life(op_hash, now_ns - _nanoseconds(event.seconds), event)
        tx_hash = {} if event.tx_hash is None else {"bundle.transaction": to_hex(event.tx_hash)}
        life.root.add_event(event.kind.value, tx_hash, now_ns)
        if event.kind is Kind.ACCEPTED and (validated := self._validated.pop(op_hash, None)) is not None:
            self._add_validation(life, *validated)
        elif event.kind in (Kind.SENT, Kind.RESENT):
            if life.bundle is None:
                life.bundle = self._start("bundle", now_ns, life.root, {"bundle.operations": len(event.op_hashes)})
            life.bundle.add_event(event.kind.value, tx_hash, now_ns)
        elif event.kind in (Kind.REVERTED, Kind.LOST, Kind.REORGANISED):
            self._end_bundle(life, event, now_ns)
        if event.kind in _ENDS:
            self._end(op_hash, life, event, now_ns)

    def _end_bundle(self, life: _Life, event: Event, now_ns: int) -> None:
        from opentelemetry.trace import Status, StatusCode

        if life.bundle is None:
            return
        life.bundle.set_attribute("bundle.outcome", event.kind.value)
        if event.block_number is not None:
            life.bundle.set_attribute("bundle.block", event.block_number)
        if event.kind is not Kind.INCLUDED:
            life.bundle.set_status(Status(StatusCode.ERROR, event.kind.value))
        life.bundle.end(now_ns)
        life.bundle = None

    def _end(self, op_hash: Hash32, life: _Life, event: Event, now_ns: int) -> None:
        from opentelemetry.trace import Status, StatusCode

        self._end_bundle(life, event, now_ns)
        life.root.set_attribute("userop.outcome", event.kind.value)
        if event.block_number is not None:
            life.root.set_attribute("bundle.block", event.block_number)
        if event.kind is Kind.DROPPED:
            life.root.set_attribute("userop.reason", event.reason)
            life.root.set_status(Status(StatusCode.ERROR, event.detail))
        life.root.end(now_ns)
        del self._lives[op_hash]

    def _leave(self, op_hash: Hash32, now_ns: int, why: str) -> None:
        life = self._lives.pop(op_hash)
        life.root.add_event(why, timestamp=now_ns)
        for span in (life.bundle, life.root):
            if span is not None:
                span.end(now_ns)


def _nanoseconds(seconds: float | None) -> int:
    return int((seconds or 0.0) * 1e9)


def open_traces(kind: str) -> Traces | None:
    """What the setting `traces` asks for: None, or spans to an OTLP collector. Raises SetupError without the extra."""
    if kind == "none":
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        raise SetupError("traces need OpenTelemetry: pip install 'seawall[otel]', or set traces = none") from None
    return Traces(OTLPSpanExporter(), at_once=False)
