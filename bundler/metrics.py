"""Prometheus metrics of one bundler. Names are stable; docs/deploy/grafana-bundler.json draws them, docs/bundler.md lists them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from bundler.events import Event, Kind
from contracts.errors import RpcError
from contracts.rpc import RpcClient
from contracts.types import checksum

if TYPE_CHECKING:
    from bundler.service import Bundler

disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each, which nobody asks for
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
_GAS = (50_000, 100_000, 200_000, 400_000, 800_000, 1_600_000, 3_200_000, 6_400_000, 12_800_000)
_INCLUSION = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0)
_OPERATION_KINDS = frozenset({Kind.ACCEPTED, Kind.REFUSED, Kind.REPLACED, Kind.DROPPED, Kind.FOREIGN})
_REMEMBERED = 100_000
"""Operations whose acceptance is remembered for the time to inclusion."""


class Metrics:
    """Counts what `Events` tell and what the server and the node client measure; gauges are read when they are asked for."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.operations = Counter(
            "seawall_bundler_operations",
            "Operations by what became of them.",
            ["outcome", "reason"],
            registry=self.registry,
        )
        self.bundles = Counter(
            "seawall_bundler_bundles", "Bundle transactions by outcome.", ["outcome"], registry=self.registry
        )
        self.bundle_size = Histogram(
            "seawall_bundler_bundle_operations",
            "Operations of a bundle that was sent.",
            buckets=_SIZES,
            registry=self.registry,
        )
        self.validation = Histogram(
            "seawall_bundler_validation_seconds", "From an operation's arrival to its answer.", ["outcome"], buckets=_FAST,
            registry=self.registry,
        )  # fmt: skip
        self.simulation = Histogram(
            "seawall_bundler_simulation_seconds",
            "One validation on the node: which (first, second), and the way it was found (cheap, full, plain, refused).",
            ["turn", "way"],
            buckets=_FAST,
            registry=self.registry,
        )
        self.bundle_gas = Histogram(
            "seawall_bundler_bundle_gas",
            "Gas that a bundle in a block used.",
            buckets=_GAS,
            registry=self.registry,
        )
        self.revenue = Counter(
            "seawall_bundler_revenue_wei",
            "What operations paid in bundles of this process; reorganisations are not taken back.",
            registry=self.registry,
        )
        self.cost = Counter(
            "seawall_bundler_cost_wei",
            "What those bundles cost, the ones that reverted too.",
            registry=self.registry,
        )
        self.inclusion = Histogram(
            "seawall_bundler_inclusion_seconds", "From acceptance to a block, as this process saw it.", buckets=_INCLUSION,
            registry=self.registry,
        )  # fmt: skip
        self.requests = Histogram(
            "seawall_bundler_request_seconds",
            "JSON-RPC requests.",
            ["method", "outcome"],
            buckets=_FAST,
            registry=self.registry,
        )
        self.node = Histogram(
            "seawall_bundler_node_seconds",
            "Requests to the node.",
            ["method", "outcome"],
            buckets=_FAST,
            registry=self.registry,
        )
        self.limited = Counter(
            "seawall_bundler_rate_limited", "Requests refused by the rate limit.", registry=self.registry
        )
        self._accepted_s: dict[bytes, float] = {}
        self._bundler: Bundler | None = None

    def watch(self, bundler: Bundler) -> None:
        """Count what happens in `bundler`, and read its gauges."""
        self._bundler = bundler
        bundler.events.listeners.append(self.note)
        self.registry.register(self)

    def note(self, event: Event) -> None:
        """Count one event. What another process did it counts itself; how long an operation of ours took is known here."""
        if not event.elsewhere:
            self._count(event)
        self._time(event)

    def _count(self, event: Event) -> None:
        if event.kind is Kind.VALIDATED:
            self.simulation.labels(event.reason, event.detail).observe(event.seconds or 0.0)
            return
        if event.kind in _OPERATION_KINDS:
            for _ in event.op_hashes or (None,):
                self.operations.labels(event.kind.value, event.reason).inc()
            if event.seconds is not None:
                self.validation.labels(event.kind.value).observe(event.seconds)
        else:
            self.bundles.labels(event.kind.value).inc()
        if event.kind in (Kind.SENT, Kind.RESENT):
            self.bundle_size.observe(len(event.op_hashes))
        if event.economics is not None:
            self.bundle_gas.observe(event.economics.gas_used)
            self.revenue.inc(event.economics.revenue_wei)
            self.cost.inc(event.economics.cost_wei)

    def _time(self, event: Event) -> None:
        now_s = time.monotonic()
        for op_hash in event.op_hashes:
            if event.kind is Kind.ACCEPTED:
                if len(self._accepted_s) >= _REMEMBERED:
                    self._accepted_s.pop(next(iter(self._accepted_s)))
                self._accepted_s[op_hash] = now_s
            elif event.kind in (Kind.INCLUDED, Kind.FOREIGN, Kind.DROPPED, Kind.REPLACED):
                since_s = self._accepted_s.pop(op_hash, None)
                if event.kind is Kind.INCLUDED and not event.elsewhere:
                    self.operations.labels("included", "").inc()
                if since_s is not None and event.kind in (Kind.INCLUDED, Kind.FOREIGN):
                    self.inclusion.observe(now_s - since_s)

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """The gauges and the endpoints' counters, now. Called by the registry."""
        bundler = self._bundler
        if bundler is None:
            return
        pool = GaugeMetricFamily("seawall_bundler_pool_operations", "Operations in the pool.", labels=["state"])
        pool.add_metric(["waiting"], len(bundler.pool) - bundler.pool.in_flight)
        pool.add_metric(["in_flight"], bundler.pool.in_flight)
        pool.add_metric(["validating"], bundler.intake.validating)
        yield pool
        size = bundler.pool.size_bytes
        yield GaugeMetricFamily(
            "seawall_bundler_pool_bytes", "Size of the pool as max_pool_bytes counts it.", value=size
        )
        yield GaugeMetricFamily(
            "seawall_bundler_bundles_in_flight", "Nonces under way.", value=len(bundler.submitter.in_flight)
        )
        if bundler.head is not None:
            yield GaugeMetricFamily("seawall_bundler_head_block", "Latest block seen.", value=bundler.head.number)
            age_s = max(time.time() - bundler.head.timestamp_s, 0.0)
            yield GaugeMetricFamily("seawall_bundler_head_age_seconds", "How old that block is.", value=age_s)
            base = GaugeMetricFamily(
                "seawall_bundler_base_fee_wei", "Its base fee per gas.", value=bundler.head.base_fee_wei
            )
            yield base
        purses = bundler.purses
        if purses.balances:
            balance = GaugeMetricFamily(
                "seawall_bundler_executor_balance_wei", "What an executor holds.", labels=["executor"]
            )
            for address, holds_wei in purses.balances.items():
                balance.add_metric([checksum(address)], float(holds_wei))
            yield balance
        low = GaugeMetricFamily(
            "seawall_bundler_executor_low", "1 when it holds less than low_balance_wei.", labels=["executor"]
        )
        for address in purses.balances:
            low.add_metric([checksum(address)], float(purses.is_low(address)))
        yield low
        held = GaugeMetricFamily(
            "seawall_bundler_treasury_balance_wei", "What the treasury holds.", labels=["treasury"]
        )
        stuck = GaugeMetricFamily(
            "seawall_bundler_treasury_problem", "1 when it cannot help an executor.", labels=["treasury"]
        )
        paid = CounterMetricFamily(
            "seawall_bundler_refilled_wei", "What it sent to executors, in this process.", labels=["treasury"]
        )
        if (treasury := purses.treasury) is not None:
            name = [checksum(treasury.address)]
            held.add_metric(name, float(treasury.balance_wei or 0))
            stuck.add_metric(name, float(treasury.problem is not None))
            paid.add_metric(name, float(treasury.refilled_wei))
        yield from (held, stuck, paid)
        sends = CounterMetricFamily(
            "seawall_bundler_endpoint",
            "Transactions handed in at an endpoint, by what became of them.",
            labels=["endpoint", "outcome"],
        )
        for state in bundler.submitter.router.states:
            for outcome, count in state.counts.items():
                sends.add_metric([state.name, outcome], count)
        yield sends
        yield GaugeMetricFamily("seawall_bundler_ready", "1 when ready.", value=float(not bundler.problems()))

    def render(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class MeasuredRpc(RpcClient):
    """A node client whose requests are timed. A batch counts as one request, `batch`."""

    def __init__(self, url: str, metrics: Metrics, **options: Any) -> None:
        super().__init__(url, **options)
        self._metrics = metrics

    async def call(self, method: str, *params: object) -> Any:
        started_s = time.monotonic()
        outcome = "unreachable"
        try:
            answer = await super().call(method, *params)
            outcome = "ok"
        except RpcError:
            outcome = "error"
            raise
        else:
            return answer
        finally:
            self._metrics.node.labels(method, outcome).observe(time.monotonic() - started_s)

    async def batch(self, calls: Sequence[tuple[str, Sequence[object]]]) -> list[Any]:
        started_s = time.monotonic()
        outcome = "unreachable"
        try:
            answer = await super().batch(calls)
            outcome = "ok"
        except RpcError:
            outcome = "error"
            raise
        else:
            return answer
        finally:
            if calls:
                self._metrics.node.labels("batch", outcome).observe(time.monotonic() - started_s)
