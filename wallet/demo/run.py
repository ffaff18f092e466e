"""One run of the demo from bars to result: stage, cast, play, then what there is to say about it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from contracts.devnet import Devnet
from contracts.devnet.bars import Bar, read_bars, shipped
from contracts.types import checksum, to_hex
from contracts.units import from_units
from policies.policy import Policy
from wallet.demo.cast import Cast
from wallet.demo.chart import draw
from wallet.demo.player import Ledger, Player
from wallet.demo.record import AccountResult, DemoResult, RefusalResult, clock, max_drawdown
from wallet.demo.scenario import Scenario
from wallet.demo.stage import Stage
from wallet.demo.view import Board, live
from wallet.policy_files import load_policy

EXAMPLES = Path(__file__).parents[2] / "policies" / "examples"
DEFAULT_POLICY = EXAMPLES / "conservative_fund.yaml"
DEFAULT_BARS = "eth_2020-03-12"


async def run(
    *,
    data: Path | None,
    from_s: int | None,
    to_s: int | None,
    policy: Path | None,
    out: Path,
    console: Console | None,
    say: Callable[[str], None],
) -> tuple[DemoResult, list[Path]]:
    """Play one window; `console` shows it live, without one each event is said as a line. Returns the result and the charts.

    Raises BadInput for bars or a policy that cannot be used, SetupError when the devnet cannot be started.
    """
    began = time.monotonic()
    path = data or shipped(DEFAULT_BARS)
    bars = read_bars(path, from_s=from_s, to_s=to_s)
    scenario = Scenario()
    scenario.check(len(bars))
    chosen = load_policy(policy or DEFAULT_POLICY)
    folder = _empty(out)
    first, last = (datetime.fromtimestamp(b.timestamp_s, UTC) for b in (bars[0], bars[-1]))
    board = Board(f"ETH {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC", len(bars))
    async with Devnet.start(price_wad=bars[0].open * 10**10, timestamp=bars[0].timestamp_s) as net:
        stage = Stage(net, folder)
        try:
            await stage.bundler.start()
            await stage.paymaster.start()
            cast = await Cast.gather(stage, chosen, scenario)
            try:
                if cast.has_stop:
                    await stage.add_keeper(from_block=cast.born_block).start()
                quiet: Callable[[str], None] = say if console is None else lambda _: None
                player = Player(stage, cast, scenario, bars, board, quiet)
                with nullcontext() if console is None else live(board, console):
                    await player.play()
                result = await _result(player, chosen, path, bars, time.monotonic() - began)
            finally:
                await cast.close()
        finally:
            await stage.stop()
    title = f"Two identical 3x longs, {board.title}\n{result.verdict}"
    return result, draw(player.samples, player.events, out, title)


def _empty(out: Path) -> Path:
    """A fresh folder for databases and logs: an old run's bundler must not resume on a new chain."""
    folder = out.absolute() / "run"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        if old.is_file():
            old.unlink()
    return folder


async def _result(player: Player, policy: Policy, path: Path, bars: Sequence[Bar], wall_s: float) -> DemoResult:
    cast = player.cast
    refusal = player.refusal or RefusalResult(False, False, [], ["the window ended before the order was made"])
    start = player.start_equity or (0.0, 0.0)
    accounts = []
    for i, (name, client) in enumerate((("protected", cast.protected), ("twin", cast.twin))):
        equity = [s.protected_equity if i == 0 else s.twin_equity for s in player.samples]
        since_open = equity[player.scenario.open_bar :]
        mine = [event for event in player.liquidations if event.trader == client.address]
        covered = sum(event.bad_debt for event in mine)
        accounts.append(
            _account(
                checksum(client.address),
                start[i],
                since_open,
                len(mine),
                float(from_units(covered, 6)),
                player.ledgers[name],
            )
        )
    protected, twin = accounts
    return DemoResult(
        data=path.name,
        from_s=bars[0].timestamp_s,
        to_s=bars[-1].timestamp_s + 60,
        policy=cast.policy_name,
        policy_id=to_hex(policy.policy_id),
        bars=len(bars),
        protected=protected,
        twin=twin,
        stop=player.stop,
        refusal=refusal,
        withdrawal_blocked=player.withdrawal_blocked,
        keeper_kills=player.keeper_kills,
        verdict=_verdict(player, protected, twin),
        events=player.events,
        wall_seconds=round(wall_s, 1),
    )


def _account(
    address: str, start: float, equity: list[float], liquidations: int, covered: float, ledger: Ledger
) -> AccountResult:
    end = equity[-1] if equity else start
    return AccountResult(
        address=address,
        start_equity=start,
        end_equity=end,
        max_drawdown=max_drawdown(equity),
        liquidated=liquidations > 0,
        liquidations=liquidations,
        bad_debt=covered + max(0.0, -end),
        operations=len(ledger.receipts),
        gas_used=ledger.gas,
        gas_cost_wei=ledger.cost_wei,
        sponsored_cost_wei=ledger.sponsored_wei,
    )


def _verdict(player: Player, protected: AccountResult, twin: AccountResult) -> str:
    """What happened in one or two sentences, in figures."""
    stop = player.stop
    if stop is not None and twin.liquidated and not protected.liquidated:
        return f"the twin was liquidated; the stop saved {protected.end_equity - twin.end_equity:,.0f} USDC"
    if stop is not None and not twin.liquidated:
        return (
            f"the stop fired at {stop.fill_price:,.2f}; the fall ended before the twin's liquidation price, and the twin ended "
            f"{twin.end_equity - protected.end_equity:+,.0f} USDC against the stopped account"
        )
    if protected.liquidated and player.cast.has_stop:
        return _no_stop_could(player)
    if twin.liquidated and protected.liquidated:
        return "both were liquidated: this policy has no stop-loss"
    if twin.liquidated:
        return f"the twin was liquidated; the protected account ended with {protected.end_equity:,.0f} USDC"
    lowest = min(s.index for s in player.samples)
    entry = player.entry_index / 1e18
    return f"nobody was liquidated and no stop was due: the index fell by at most {(entry - lowest) / entry:.1%} from the entry"


def _no_stop_could(player: Player) -> str:
    """The gap in figures: the last price above the trigger and the first at which the venue liquidated."""
    trigger = player.cast.trigger_wad / 1e18
    above = [s for s in player.samples if s.index > trigger and s.protected_size]
    last = above[-1] if above else player.samples[0]
    following = [s for s in player.samples if s.timestamp_s > last.timestamp_s]
    first = following[0] if following else last
    drop = (last.index - first.index) / last.index
    return (
        f"no stop could have helped: at {clock(last.timestamp_s)} ETH stood at {last.index:,.2f}, above the trigger {trigger:,.2f}; "
        f"one bar later at {first.index:,.2f} ({drop:.1%} lower), where the venue liquidates a 3x long. "
        "Less leverage survives this, a faster stop does not"
    )
