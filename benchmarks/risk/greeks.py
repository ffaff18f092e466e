"""Price and seven Greeks of a million options, beside numpy and QuantLib.

    python benchmarks/risk/greeks.py [--options N] [--rounds N]

One thread each, the same options; results are compared before anything is timed. Rounds go through all in turn. QuantLib's BlackCalculator
runs on a part of them. The ratios are the claim; the options per second are this machine's.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import time
from collections.abc import Callable

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

# ruff: noqa: E402
import numpy as np
import QuantLib as ql  # noqa: N813 (the module's own abbreviation)

from policies.risk.black_arrays import greeks

PEER_SHARE = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--options", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    n = given.options
    random = np.random.default_rng(1)
    spot = np.full(n, 3_000.0)
    strike = spot * np.exp(random.uniform(-0.7, 0.7, n))
    years, vol = random.uniform(0.01, 2, n), random.uniform(0.2, 1.5, n)
    is_call = random.random(n) < 0.5
    some = slice(0, n // PEER_SHARE)

    def quantlib() -> list[float]:
        found = []
        for s, k, t, v, c in zip(spot[some], strike[some], years[some], vol[some], is_call[some], strict=True):
            kind = ql.Option.Call if c else ql.Option.Put
            peer = ql.BlackCalculator(
                ql.PlainVanillaPayoff(kind, k), s * math.exp(0.03 * t), v * math.sqrt(t), math.exp(-0.03 * t)
            )
            found.append(peer.value())
            peer.delta(s), peer.gamma(s), peer.vega(t), peer.theta(s, t), peer.rho(t)
        return found

    runs: dict[str, tuple[Callable[[], object], int]] = {
        "seawall, numba": (lambda: greeks(spot, strike, years, vol, is_call, rate=0.03, backend="numba"), n),
        "seawall, numpy": (lambda: greeks(spot, strike, years, vol, is_call, rate=0.03, backend="numpy"), n),
        "QuantLib, a loop": (quantlib, n // PEER_SHARE),
    }
    compiled = greeks(spot, strike, years, vol, is_call, rate=0.03, backend="numba")
    plain = greeks(spot, strike, years, vol, is_call, rate=0.03, backend="numpy")
    for one, other in zip(compiled, plain, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(compiled.price[some], quantlib(), rtol=1e-9, atol=1e-8)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(given.rounds):
        for name, (run, _) in runs.items():
            begun = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - begun)
    rates = {name: runs[name][1] / statistics.median(taken) / 1e6 for name, taken in times.items()}
    base = rates["seawall, numpy"]
    print(f"price and 7 Greeks of {n:,} options, one thread, medians of {given.rounds}")
    print(f"{'':20}{'M/s':>10}{'x numpy':>10}")
    for name, rate in rates.items():
        print(f"{name:20}{rate:10.3f}{rate / base:10.3f}")


if __name__ == "__main__":
    main()
