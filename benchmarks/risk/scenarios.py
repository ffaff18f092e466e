"""Full revaluation of 1,000 options in 10,000 scenarios (100 spots x 100 volatilities), beside what else could do it.

    python benchmarks/risk/scenarios.py [--options N] [--spots N] [--vols N] [--rounds N]

All run on one thread and add up one profit per scenario over options of distinct strikes, expiries and volatilities; their totals are
compared before anything is timed. Rounds go through all of them in turn, so that a busy machine disturbs each alike. The ratio to
blocked numpy is the claim; the revaluations per second are this machine's.

    numpy, by hand     blocks that fit the cache, scipy.special.ndtr, everything hoisted that can be
    numba, by hand     one loop, math.erfc, math.log hoisted: what one writes first
    QuantLib           blackFormula in a Python loop, on a part of the grid
    C                  one loop, gcc -O3 -march=native -ffast-math (vector exp and log of libmvec), a rational normal distribution
    seawall            `policies.risk.scenarios.revalue`, whole: book to columns, error bounds, profits
"""

from __future__ import annotations

import argparse
import ctypes
import math
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

# One thread for every library, set before any of them is loaded.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

# ruff: noqa: E402
import numba
import numpy as np
import QuantLib
from scipy.special import ndtr

from policies.risk._kernel import YEAR_S
from policies.risk.scenarios import revalue
from policies.risk.scenarios_book import Book, EuropeanOption
from policies.risk.scenarios_sets import Grid

SPOT = 3000.0
C_SOURCE = r"""
#include <math.h>
/* N(x): Hart 1968 5666 as in West 2005, without its branch for |x| > 7 */
static inline double cdf(double x) {
  double y = fabs(x), e = exp(-0.5 * y * y);
  double p = ((((((3.52624965998911e-02*y + 0.700383064443688)*y + 6.37396220353165)*y + 33.912866078383)*y + 112.079291497871)*y
    + 221.213596169931)*y + 220.206867912376);
  double q = (((((((8.83883476483184e-02*y + 1.75566716318264)*y + 16.064177579207)*y + 86.7807322029461)*y + 296.564248779674)*y
    + 637.333633378831)*y + 793.826512519948)*y + 440.413735824752);
  double n = e * p / q;
  return x > 0 ? 1 - n : n;
}
void add_up(long n, long m, const double *strike, const double *root, const double *vol, const double *size, const double *sign,
            const double *spot, const double *scale, double *restrict out) {
  for (long i = 0; i < n; i++) {
    double k = strike[i], s = sign[i], w = size[i] * s, r = root[i] * vol[i];
    for (long j = 0; j < m; j++) {
      double v = r * scale[j], d1 = log(spot[j] / k) / v + 0.5 * v;
      out[j] += w * (spot[j] * cdf(s * d1) - k * cdf(s * (d1 - v)));
    }
  }
}
"""


@numba.njit(fastmath=True, error_model="numpy")  # type: ignore[untyped-decorator,unused-ignore]
def numba_by_hand(log_strike, strike, root, size, sign, spot, log_spot, scale, out):  # type: ignore[no-untyped-def]
    half = math.sqrt(0.5)
    for i in range(strike.shape[0]):
        for j in range(spot.shape[0]):
            v = root[i] * scale[j]
            d1 = (log_spot[j] - log_strike[i]) / v + 0.5 * v
            s = sign[i]
            one = 0.5 * math.erfc(-s * d1 * half)
            two = 0.5 * math.erfc(-s * (d1 - v) * half)
            out[j] += size[i] * s * (spot[j] * one - strike[i] * two)


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in (("options", 1000), ("spots", 100), ("vols", 100), ("rounds", 7)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    n, m = given.options, given.spots * given.vols

    rng = np.random.default_rng(1)
    strike = np.round(SPOT * np.exp(rng.normal(0, 0.3, n)), 2)
    life_s = rng.integers(86_400, YEAR_S, n)
    vol, size = np.round(rng.uniform(0.3, 1.2, n), 4), np.round(rng.normal(0, 3, n), 6)
    sign = rng.choice([-1.0, 1.0], n)
    spots = np.round(np.linspace(-0.6, 0.6, given.spots), 6)
    vols = np.round(np.linspace(-0.5, 1.0, given.vols), 6)
    book = Book(
        {"ETH": Decimal(3000)},
        options=tuple(
            EuropeanOption(
                f"{i}",
                "ETH",
                bool(sign[i] > 0),
                _decimal(strike[i]),
                int(life_s[i]),
                _decimal(size[i]),
                _decimal(vol[i]),
            )
            for i in range(n)
        ),
    )
    grid = Grid(spot=list(map(float, spots)), vol=[(float(x), 0) for x in vols])

    root = np.sqrt(life_s / YEAR_S)
    spot, scale = np.tile(SPOT * (1 + spots), given.vols), np.repeat(1 + vols, given.spots)
    log_spot, log_strike = np.log(spot), np.log(strike)
    width = root * vol

    def by_numpy() -> np.ndarray:
        out = np.zeros(m)
        block, rows = 512, 8  # the fastest of those tried: temporaries of 32 kB
        weight = (size * sign)[:, None]
        for i in range(0, n, rows):
            part = slice(i, i + rows)
            k, s, w = strike[part, None], sign[part, None], weight[part]
            lk, base = log_strike[part, None], width[part, None]
            for j in range(0, m, block):
                cut = slice(j, j + block)
                v = base * scale[cut]
                d1 = (log_spot[cut] - lk) / v + 0.5 * v
                out[cut] += (w * (spot[cut] * ndtr(s * d1) - k * ndtr(s * (d1 - v)))).sum(axis=0)
        return out

    def by_numba() -> np.ndarray:
        out = np.zeros(m)
        for j in range(0, m, 1024):
            cut = slice(j, j + 1024)
            numba_by_hand(log_strike, strike, width, size, sign, spot[cut], log_spot[cut], scale[cut], out[cut])
        return out

    part_n, part_m = min(n, 100), min(m, 1000)

    def by_quantlib() -> np.ndarray:
        out = np.zeros(m)
        kinds = [QuantLib.Option.Call if s > 0 else QuantLib.Option.Put for s in sign[:part_n]]
        for i in range(part_n):
            k, w, x = float(strike[i]), float(width[i]), float(size[i])
            for j in range(part_m):
                out[j] += x * QuantLib.blackFormula(kinds[i], k, float(spot[j]), w * float(scale[j]))
        return out

    compiled = _c_bound()

    def by_c() -> np.ndarray:
        assert compiled is not None
        out = np.zeros(m)
        for j in range(0, m, 1024):
            cut = slice(j, min(j + 1024, m))
            arrays = (strike, root, vol, size, sign, spot[cut], scale[cut], out[cut])
            compiled.add_up(n, out[cut].size, *(a.ctypes.data_as(ctypes.c_void_p) for a in arrays))
        return out

    base = float(value_today(strike, width, size, sign))
    contenders: dict[str, tuple[Callable[[], np.ndarray], int]] = {
        "numpy, by hand": (by_numpy, n * m),
        "numba, by hand": (by_numba, n * m),
        "seawall, numpy": (lambda: revalue(book, grid, backend="numpy").pnl + base, n * m),
        "seawall, numba": (lambda: revalue(book, grid, backend="numba").pnl + base, n * m),
        "QuantLib": (by_quantlib, part_n * part_m),
    }
    if compiled is not None:
        contenders["C"] = (by_c, n * m)

    expected = by_numpy()
    for name, (run, count) in contenders.items():
        found = run()
        if count == n * m:
            difference = float(np.abs(found - expected).max()) / float((np.abs(size) * (strike + SPOT)).sum())
            print(f"{name:<16} differs from numpy by hand by {difference:.1e} of the gross value at most")
            assert difference < 1e-10, "one of them computes something else"

    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(given.rounds):
        for name, (run, _count) in contenders.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    print(f"\n{n:,} options x {m:,} scenarios, one thread, medians of {given.rounds} rounds in turn")
    print(f"{'':<16} {'M/s':>8} {'x numpy':>8}   slowest and fastest round, M/s")
    speed = {name: contenders[name][1] / statistics.median(times) / 1e6 for name, times in seconds.items()}
    for name in sorted(speed, key=lambda name: -speed[name]):
        count = contenders[name][1] / 1e6
        low, high = count / max(seconds[name]), count / min(seconds[name])
        print(f"{name:<16} {speed[name]:>8.1f} {speed[name] / speed['numpy, by hand']:>8.2f}   {low:.1f} to {high:.1f}")
    if compiled is None:
        print("C                not available: there is no gcc")


def value_today(strike: np.ndarray, width: np.ndarray, size: np.ndarray, sign: np.ndarray) -> float:
    """The value today, which a profit is measured from."""
    d1 = np.log(SPOT / strike) / width + width / 2
    return float((size * sign * (SPOT * ndtr(sign * d1) - strike * ndtr(sign * (d1 - width)))).sum())


def _decimal(value: float) -> Decimal:
    return Decimal(repr(float(value)))


def _c_bound() -> ctypes.CDLL | None:
    compiler = shutil.which("gcc")
    if compiler is None:
        return None
    folder = Path(tempfile.mkdtemp())
    (folder / "bound.c").write_text(C_SOURCE)
    options = ["-O3", "-march=native", "-ffast-math", "-shared", "-fPIC"]
    subprocess.run(
        [compiler, *options, "-o", str(folder / "bound.so"), str(folder / "bound.c"), "-lmvec", "-lm"], check=True
    )
    library = ctypes.CDLL(str(folder / "bound.so"))
    library.add_up.argtypes = [ctypes.c_long, ctypes.c_long] + [ctypes.c_void_p] * 8
    library.add_up.restype = None
    shutil.rmtree(folder)
    return library


if __name__ == "__main__":
    main()
