"""Both equity curves and the index, with the events marked: the picture in the README, as SVG and PNG."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from contracts.errors import SetupError
from wallet.demo.record import Event, Sample

_MARKS = {
    "opened": ("o", "#1f2937", "both open the same long"),
    "refused": ("X", "#b45309", "order refused before signing"),
    "frozen": ("s", "#2563eb", "guardian freezes"),
    "thawed": ("D", "#60a5fa", "freeze expires"),
    "keeper_killed": ("v", "#9333ea", "keeper killed"),
    "keeper_restarted": ("^", "#9333ea", "keeper restarted"),
    "stop_fired": ("*", "#15803d", "stop fires"),
    "liquidated": ("P", "#b91c1c", "twin liquidated"),
}


def draw(samples: Sequence[Sample], events: Sequence[Event], folder: Path, title: str) -> list[Path]:
    """Write `equity.svg` and `equity.png` into `folder`; the same input gives the same SVG bytes.

    Raises SetupError when matplotlib is not installed.
    """
    try:
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.dates as dates
        import matplotlib.pyplot as plt
    except ImportError:
        raise SetupError("the chart needs matplotlib: pip install 'seawall[demo]'") from None
    matplotlib.rcParams["svg.hashsalt"] = "seawall"
    matplotlib.rcParams["font.family"] = "DejaVu Sans"

    def when(timestamp_s: int) -> float:
        return float(dates.date2num(datetime.fromtimestamp(timestamp_s, UTC)))  # type: ignore[no-untyped-call]

    times = [when(s.timestamp_s) for s in samples]
    figure, (top, bottom) = plt.subplots(
        2, 1, figsize=(11, 6.4), sharex=True, gridspec_kw={"height_ratios": [3, 1.4], "hspace": 0.08}
    )
    top.plot(times, [s.twin_equity for s in samples], color="#b91c1c", lw=1.5, label="its twin, no stop")
    top.plot(times, [s.protected_equity for s in samples], color="#15803d", lw=1.8, label="under the policy")
    top.axhline(0, color="#9ca3af", lw=0.8)
    top.set_ylabel("equity, USDC")
    top.set_title(title, loc="left", fontsize=11, wrap=True)
    bottom.plot(times, [s.index for s in samples], color="#374151", lw=1.1)
    bottom.set_ylabel("ETH index, USD")
    bottom.set_xlabel("UTC")
    seen: set[str] = set()
    for event in events:
        if event.kind not in _MARKS or not samples:
            continue
        marker, color, label = _MARKS[event.kind]
        nearest = min(samples, key=lambda s: abs(s.timestamp_s - event.timestamp_s))
        height = nearest.twin_equity if event.kind == "liquidated" else nearest.protected_equity
        top.plot(
            [when(event.timestamp_s)],
            [height],
            marker=marker,
            color=color,
            ms=11 if marker == "*" else 8,
            mec="white",
            mew=0.8,
            ls="",
            zorder=5,
            label=None if event.kind in seen else label,
        )
        bottom.axvline(when(event.timestamp_s), color=color, lw=0.7, alpha=0.5)
        seen.add(event.kind)
    for axes in (top, bottom):
        axes.grid(color="#e5e7eb", lw=0.6)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    span_h = (times[-1] - times[0]) * 24 if times else 1
    step_h = next((step for step in (1, 2, 3, 4, 6) if span_h / step <= 9), 6)
    hours = dates.HourLocator(byhour=range(0, 24, step_h))  # type: ignore[no-untyped-call]
    minutes = dates.MinuteLocator(byminute=range(0, 60, 15))  # type: ignore[no-untyped-call]
    bottom.xaxis.set_major_locator(hours if span_h > 2.5 else minutes)
    bottom.xaxis.set_major_formatter(dates.DateFormatter("%H:%M"))  # type: ignore[no-untyped-call]
    top.legend(frameon=False, fontsize=8.5, ncols=2, loc="best")
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "equity.svg", folder / "equity.png"]
    figure.savefig(paths[0], metadata={"Date": None}, bbox_inches="tight")
    figure.savefig(paths[1], dpi=130, metadata={"Software": None}, bbox_inches="tight")
    plt.close(figure)
    return paths
