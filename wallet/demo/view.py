"""The demo on the screen: a Rich live view while it runs, and the table at its end."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from rich.console import Console, Group
from rich.layout import Layout
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from wallet.demo.record import DemoResult, Event, RefusalResult, Sample, clock

_STATE_STYLE = {"ACTIVE": "bold green", "REDUCE_ONLY": "bold yellow", "FROZEN": "bold cyan"}
_EVENT_STYLE = {
    "refused": "yellow",
    "frozen": "cyan",
    "blocked": "cyan",
    "thawed": "cyan",
    "keeper_killed": "magenta",
    "keeper_restarted": "magenta",
    "stop_fired": "bold green",
    "liquidated": "bold red",
}
_SPARKS = " ▁▂▃▄▅▆▇█"
_WIDTH = 48


def sparkline(values: list[float], width: int = _WIDTH) -> str:
    """The last of each of `width` equal stretches of `values`, as block characters between their minimum and maximum."""
    if not values:
        return ""
    count = min(width, len(values))
    points = [values[(i + 1) * len(values) // count - 1] for i in range(count)]
    low, high = min(points), max(points)
    span = (high - low) or 1.0
    return "".join(_SPARKS[1 + round((p - low) / span * (len(_SPARKS) - 2))] for p in points)


@dataclass(slots=True)
class Board:
    """What the live view shows. The player writes it, the view reads it."""

    title: str
    bars: int
    bar: int = 0
    samples: list[Sample] = field(default_factory=list)
    events: deque[Event] = field(default_factory=lambda: deque(maxlen=200))
    services: dict[str, bool] = field(default_factory=dict)
    bundles: int = 0
    operations: int = 0
    sponsored_wei: int = 0
    keeper_head: int = 0
    verdicts: deque[str] = field(default_factory=lambda: deque(maxlen=4))

    def __rich__(self) -> Layout:
        layout = Layout()
        layout.split_column(Layout(self._head(), size=3), Layout(name="body", size=14), Layout(self._log(), name="log"))
        layout["body"].split_row(Layout(self._accounts(), ratio=3), Layout(self._services(), ratio=2))
        return layout

    def _head(self) -> Panel:
        line = Table.grid(expand=True)
        line.add_column()
        line.add_column(justify="right")
        now = clock(self.samples[-1].timestamp_s) if self.samples else "--"
        line.add_row(Text(self.title, style="bold"), Text(f"{now} UTC   bar {self.bar}/{self.bars}"))
        return Panel(line, border_style="blue")

    def _accounts(self) -> Panel:
        table = Table(expand=True, box=None, padding=(0, 1))
        for name in ("", "equity", "position", "state"):
            table.add_column(name, justify="left" if name in ("", "state") else "right")
        if not self.samples:
            return Panel(Text("starting the chain and the services ..."), title="accounts")
        last = self.samples[-1]
        state = Text(last.state, style=_STATE_STYLE.get(last.state, ""))
        table.add_row("under the policy", f"{last.protected_equity:,.2f}", f"{last.protected_size:+.4f} ETH", state)
        table.add_row(
            "its twin", f"{last.twin_equity:,.2f}", f"{last.twin_size:+.4f} ETH", Text("no guards", style="dim")
        )
        grid = Group(
            table,
            Text(""),
            Text(f"ETH {last.index:>9,.2f}  ", style="bold").append(
                sparkline([s.index for s in self.samples]), style="white"
            ),
            Text("policy         ").append(sparkline([s.protected_equity for s in self.samples]), style="green"),
            Text("twin           ").append(sparkline([s.twin_equity for s in self.samples]), style="red"),
        )
        return Panel(grid, title="accounts")

    @staticmethod
    def _curve(name: str, values: list[float], style: str) -> Text:
        return Text(f" {name:<14}", no_wrap=True).append(sparkline(values), style=style)

    def _services(self) -> Panel:
        table = Table.grid(padding=(0, 2))
        for name, alive in self.services.items():
            table.add_row(name, Text("running", style="green") if alive else Text("KILLED", style="bold magenta"))
        table.add_row("bundles / operations", f"{self.bundles} / {self.operations}")
        table.add_row("sponsored", f"{self.sponsored_wei / 1e18:.9f} ETH")
        table.add_row("keeper at block", str(self.keeper_head or "-"))
        verdicts = Text("\n".join(self.verdicts) or "no order judged yet", style="dim")
        return Panel(Group(table, Text(""), verdicts), title="services and verdicts")

    def _log(self) -> Panel:
        lines = Table.grid(padding=(0, 2))
        for event in list(self.events)[-12:]:
            lines.add_row(
                Text(clock(event.timestamp_s), style="dim"), Text(event.text, style=_EVENT_STYLE.get(event.kind, ""))
            )
        progress = ProgressBar(total=max(self.bars, 1), completed=self.bar)
        return Panel(Group(progress, Text(""), lines), title="events")


def live(board: Board, console: Console) -> Live:
    """The running view, four times a second; on a pipe it stays silent and events are printed as lines instead."""
    return Live(board, console=console, refresh_per_second=4, screen=False, transient=True)


def refusal_panel(refusal: RefusalResult) -> Panel:
    """The refused order and what stood against it."""
    title = "the order that was refused before anybody signed it"
    return Panel(Text("\n".join(refusal.explanation)), title=title, title_align="left")


def final_table(result: DemoResult) -> Table:
    """Both accounts side by side."""
    table = Table(title=result.verdict, title_justify="left", title_style="bold", show_lines=False)
    table.add_column("")
    table.add_column("under the policy", justify="right")
    table.add_column("its twin, no stop", justify="right")
    protected, twin = result.protected, result.twin

    def both(name: str, one: str, other: str) -> None:
        table.add_row(name, one, other)

    both("equity at the start", f"{protected.start_equity:,.2f} USDC", f"{twin.start_equity:,.2f} USDC")
    both("equity at the end", f"{protected.end_equity:,.2f} USDC", f"{twin.end_equity:,.2f} USDC")
    both("largest drawdown from high", f"{protected.max_drawdown:.1%}", f"{twin.max_drawdown:.1%}")
    both("liquidated", "YES" if protected.liquidated else "no", "YES" if twin.liquidated else "no")
    both("bad debt left at the venue", f"{protected.bad_debt:,.2f} USDC", f"{twin.bad_debt:,.2f} USDC")
    if result.stop is not None:
        stop = result.stop
        both("stop: trigger, fill", f"{stop.trigger_price:,.2f}, {stop.fill_price:,.2f} USD", "-")
        both("stop: trigger to inclusion", f"{stop.blocks} block(s), {stop.seconds} s", "-")
        both("stop: times fired", str(stop.times_fired), "-")
    else:
        both("stop", "did not fire", "-")
    both("keeper killed and restarted", f"{result.keeper_kills} time(s)", "-")
    both("order refused before signing", "yes" if not result.refusal.signed else "NO", "-")
    both("withdrawal stopped while frozen", "yes" if result.withdrawal_blocked else "NO", "-")
    both("operations, gas", f"{protected.operations}, {protected.gas_used:,}", f"{twin.operations}, {twin.gas_used:,}")
    both("gas cost", f"{protected.gas_cost_wei / 1e18:.9f} ETH", f"{twin.gas_cost_wei / 1e18:.9f} ETH")
    both(
        "of that sponsored",
        f"{protected.sponsored_cost_wei / 1e18:.9f} ETH",
        f"{twin.sponsored_cost_wei / 1e18:.9f} ETH",
    )
    return table
