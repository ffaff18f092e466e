"""The demo as its user runs it: the facts it prints are the product's promises, on real protocols and real crash data."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from contracts.devnet.bars import shipped

EXAMPLES = Path(__file__).parents[2] / "policies" / "examples"


def run_demo(out: Path, *arguments: str) -> dict[str, Any]:
    """`seawall demo --json ARGUMENTS`, as a process of its own."""
    command = [sys.executable, "-m", "wallet.cli", "demo", "--json", "--out", str(out), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stderr[-4000:]}"
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def crash(name: str, start: str, end: str) -> list[str]:
    return ["--data", str(shipped(name)), "--from", start, "--to", end]


@pytest.fixture(scope="module")
def black_thursday(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """The hours around the crash of 2020-03-12; `make demo` replays the whole day."""
    out = tmp_path_factory.mktemp("demo")
    window = crash("eth_2020-03-12", "2020-03-12T06:00", "2020-03-12T11:00")
    return run_demo(out, *window), out


def test_the_twin_is_liquidated_and_the_protected_account_is_not(black_thursday: tuple[dict[str, Any], Path]) -> None:
    facts, _ = black_thursday
    assert facts["twin"]["liquidated"]
    assert not facts["protected"]["liquidated"]
    assert facts["protected"]["end_equity"] > 5_000 > facts["twin"]["end_equity"]


def test_exactly_one_stop_fires_although_the_keeper_was_killed(black_thursday: tuple[dict[str, Any], Path]) -> None:
    facts, _ = black_thursday
    assert facts["keeper_kills"] == 2
    assert facts["stop"]["times_fired"] == 1
    assert facts["stop"]["blocks"] <= 2


def test_the_refused_order_never_reaches_the_bundler(black_thursday: tuple[dict[str, Any], Path]) -> None:
    facts, _ = black_thursday
    refusal = facts["refusal"]
    assert not refusal["reached_bundler"]
    assert not refusal["signed"]
    assert "leverage" in {row["metric"] for row in refusal["failing_limits"]}
    assert any(
        "largest size that passes: " in line and "0.000001 more does not" in line for line in refusal["explanation"]
    )


def test_a_frozen_account_keeps_its_margin_from_stolen_keys(black_thursday: tuple[dict[str, Any], Path]) -> None:
    facts, _ = black_thursday
    assert facts["withdrawal_blocked"]
    kinds = [event["kind"] for event in facts["events"]]
    assert kinds.index("frozen") < kinds.index("blocked") < kinds.index("thawed") < kinds.index("stop_fired")


def test_the_chart_is_written_as_svg_and_png(black_thursday: tuple[dict[str, Any], Path]) -> None:
    _, out = black_thursday
    assert (out / "equity.svg").read_text().startswith("<?xml")
    assert (out / "equity.png").read_bytes()[:4] == b"\x89PNG"


def test_a_second_run_says_the_same(black_thursday: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    facts, _ = black_thursday
    again = run_demo(tmp_path, *crash("eth_2020-03-12", "2020-03-12T06:00", "2020-03-12T11:00"))
    for run in (facts, again):
        run.pop("wall_seconds")
    assert again == facts


def test_without_the_stop_alone_the_protected_account_is_liquidated_too(
    black_thursday: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    facts, _ = black_thursday
    policy = EXAMPLES / "conservative_fund_no_stop.yaml"
    window = crash("eth_2020-03-12", "2020-03-12T06:00", "2020-03-12T11:00")
    unguarded = run_demo(tmp_path, *window, "--policy", str(policy))
    assert unguarded["stop"] is None
    assert unguarded["protected"]["liquidated"]
    assert unguarded["protected"]["start_equity"] == pytest.approx(facts["protected"]["start_equity"], rel=1e-6)


def test_another_crash_gives_the_same_kind_of_result(tmp_path: Path) -> None:
    facts = run_demo(tmp_path, *crash("eth_2021-05-19", "2021-05-19T08:00", "2021-05-19T13:30"))
    assert facts["stop"]["times_fired"] == 1
    assert facts["twin"]["liquidated"]
    assert not facts["protected"]["liquidated"]
    assert facts["protected"]["end_equity"] > facts["twin"]["end_equity"]


def test_a_gap_that_no_stop_can_survive_is_said_in_figures(tmp_path: Path) -> None:
    """Hand-made bars: 40 % gone within one minute, from above the trigger to below the liquidation price."""
    rows = ["timestamp,open,high,low,close"]
    for minute in range(70):
        price = 100 if minute < 60 else 60
        first = 100 if minute <= 60 else 60
        rows.append(f"{1_600_000_020 + 60 * minute},{first},{max(first, price)},{min(first, price)},{price}")
    data = tmp_path / "gap.csv"
    data.write_text("\n".join(rows) + "\n")
    facts = run_demo(tmp_path / "out", "--data", str(data))
    assert facts["twin"]["liquidated"]
    assert "could" in facts["verdict"]
    assert any(character.isdigit() for character in facts["verdict"])


def test_a_calm_day_fires_nothing(tmp_path: Path) -> None:
    calm = next(path for path in shipped("eth_2020-03-12").parent.glob("eth_2023-*.csv"))
    rows = [line for line in calm.read_text().splitlines() if not line.startswith("#")]
    data = tmp_path / "calm.csv"
    data.write_text("\n".join(rows[:80]) + "\n")
    facts = run_demo(tmp_path / "out", "--data", str(data))
    assert facts["stop"] is None
    assert not facts["twin"]["liquidated"]
    assert not facts["protected"]["liquidated"]
