"""The picture of a back-test: equity with what happened, prices, and how much of each limit was in use."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from contracts.errors import BadInput, SetupError
from policies.backtest import Result

_MARKS = {
    "stop": ("*", "#15803d", "stop"),
    "liquidation": ("P", "#b91c1c", "liquidation"),
    "loan": ("X", "#be185d", "loan below health factor 1"),
    "refused": ("X", "#b45309", "order refused"),
    "signers": ("D", "#7c3aed", "order needs signers"),
    "allowed": ("o", "#2563eb", "order filled"),
    "expiry": ("s", "#6b7280", "option expires"),
}
_LINES = ("#2563eb", "#b45309", "#15803d", "#9333ea", "#be185d", "#0e7490", "#4d7c0f", "#374151")
_MOST_POINTS = 6_000
_MOST_LIMITS = len(_LINES)


def draw(result: Result, file: Path) -> None:
    """Write the picture; the kind follows the name's end (.png, .svg or .pdf). The same result gives the same SVG bytes.

    Limits are shown by how much of their bound was in use at most, the highest eight. Raises SetupError without matplotlib, BadInput
    for another kind of file.
    """
    if file.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise BadInput(f"--plot writes .png, .svg or .pdf, not {file.name!r}")
    try:
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.dates as dates
        import matplotlib.pyplot as plt
    except ImportError:
        raise SetupError("the picture needs matplotlib: pip install 'seawall[demo]'") from None
    matplotlib.rcParams["svg.hashsalt"] = "seawall"
    matplotlib.rcParams["font.family"] = "DejaVu Sans"
    track = result.track
    step = max(1, len(track.times_s) // _MOST_POINTS)

    def when(seconds: int) -> float:
        return float(dates.date2num(datetime.fromtimestamp(int(seconds), UTC)))  # type: ignore[no-untyped-call]

    times = np.array([when(t) for t in track.times_s[::step]])
    figure, (top, middle, bottom) = plt.subplots(
        3, 1, figsize=(11, 8.2), sharex=True, gridspec_kw={"height_ratios": [2.6, 1.1, 2.2], "hspace": 0.1}
    )
    top.plot(times, track.equity[::step], color="#15803d", lw=1.6)
    top.set_ylabel("equity, USDC")
    e = result.equity
    top.set_title(
        f"{result.policy_name}: {len(result.refused)} of {len(result.orders)} orders refused, "
        f"stop fills: {len(result.of_kind('stop'))}, liquidations: {len(result.of_kind('liquidation'))}, "
        f"drawdown {e.max_drawdown:.1%}",
        loc="left",
        fontsize=11,
    )
    _events(result, top, (top, middle, bottom), when)
    for number, asset in enumerate(track.assets):
        closes = track.closes[::step, number]
        scaled = closes / closes[0] if len(track.assets) > 1 else closes
        middle.plot(times, scaled, color=_LINES[-1 - number % len(_LINES)], lw=1.1, label=asset)
    middle.set_ylabel("price / first" if len(track.assets) > 1 else f"{track.assets[0]}, USD")
    if len(track.assets) > 1:
        middle.legend(frameon=False, fontsize=8)
    _use(result, bottom, times, step)
    for axes in (top, middle, bottom):
        axes.grid(color="#e5e7eb", lw=0.6)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    locator = dates.AutoDateLocator()  # type: ignore[no-untyped-call]
    bottom.xaxis.set_major_locator(locator)
    bottom.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    bottom.set_xlabel("UTC")
    file.parent.mkdir(parents=True, exist_ok=True)
    metadata = {".svg": {"Date": None}, ".png": {"Software": None}, ".pdf": {"CreationDate": None}}[file.suffix.lower()]
    figure.savefig(file, dpi=130, metadata=metadata, bbox_inches="tight")
    plt.close(figure)


def _events(result: Result, top: Any, all_axes: tuple[Any, ...], when: Any) -> None:
    track, seen = result.track, set()
    for event in result.events:
        if event.kind not in _MARKS:
            continue
        marker, color, label = _MARKS[event.kind]
        row = min(int(np.searchsorted(track.times_s, event.at_s)), len(track.times_s) - 1)
        top.plot(
            [when(event.at_s)], [track.equity[row]], marker=marker, color=color, ms=11 if marker == "*" else 8, mec="white",
            mew=0.8, ls="", zorder=5, label=None if label in seen else label,
        )  # fmt: skip
        for axes in all_axes[1:]:
            axes.axvline(when(event.at_s), color=color, lw=0.7, alpha=0.4)
        seen.add(label)
    if seen:
        top.legend(frameon=False, fontsize=8.5, ncols=2, loc="best")


def _use(result: Result, axes: Any, times: Any, step: int) -> None:
    """Each limit's use of its bound, in percent; the bound itself is the line at 100."""
    track = result.track
    peaks = [
        (float(np.nanmax(column)) if np.isfinite(column).any() else 0.0, number)
        for number, column in enumerate(track.use.T)
    ]
    shown = [number for peak, number in sorted(peaks, key=lambda pair: -pair[0])[:_MOST_LIMITS] if peak > 0]
    for color, number in zip(_LINES, shown, strict=False):
        column = np.minimum(track.use[::step, number] * 100, 400)
        axes.plot(times, column, lw=1.2, color=color, label=track.limits[number])
    axes.axhline(100, color="#b91c1c", lw=1.2, ls="--")
    axes.set_ylabel("limit in use, % (400 at most)")
    axes.set_ylim(bottom=0)
    if shown:
        axes.legend(frameon=False, fontsize=8, ncols=2, loc="upper right")
