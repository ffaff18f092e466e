"""A Decision for people: a table on a terminal, plain lines in a pipe, a page in a file."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from rich.console import Console

from contracts.errors import BadInput, SetupError
from policies import evaluate
from tests.policies.rig import NOW_S, opening, portfolio
from tests.policies.test_explain_html import FUND, refused
from tests.wallet.test_cli_policy import POLICY, some_facts, write
from wallet.cli.decision_view import show_decision, write_html
from wallet.cli.main import main
from wallet.recorded import facts_to_json


def shown(decision: object, *, terminal: bool) -> str:
    out = io.StringIO()
    show_decision(Console(file=out, force_terminal=terminal, width=220, color_system=None), decision)  # type: ignore[arg-type]
    return out.getvalue()


def test_a_terminal_gets_a_table_with_everything_that_decides() -> None:
    decision = evaluate(FUND, opening(FUND, after=portfolio("250")), NOW_S)
    text = shown(decision.to_json(), terminal=True)
    for words in (
        "DENY by policy conservative-fund",
        "headroom",
        "leverage [portfolio]",
        "perp:ETH",
        "breached",
        "calls[",
    ):
        assert words in text
    assert "largest size that passes" in shown(refused().to_json(), terminal=True)


def test_markup_in_names_is_only_text() -> None:
    sound = refused()
    row = replace(sound.limits[0], id="[red]x[/red]", contributions=(("[bold]y", Decimal(1)),))
    text = shown(replace(sound, limits=(row,), sizes=None).to_json(), terminal=True)
    assert "[red]x[/red]" in text
    assert "[bold]y" in text


def test_a_pipe_gets_plain_lines() -> None:
    decision = refused()
    assert shown(decision.to_json(), terminal=False).splitlines() == decision.explain()


def test_check_and_explain_write_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policy.yaml").write_text(POLICY)
    recorded = write(tmp_path / "facts.json", facts_to_json(replace(some_facts(), outstanding=())))
    assert main(["policy", "check", "policy.yaml", "--facts", recorded, "--html", "one.html", "--json"]) == 0
    decision = json.loads(capsys.readouterr().out)
    assert "<h1>Allowed</h1>" in (tmp_path / "one.html").read_text()
    write(tmp_path / "decision.json", decision)
    assert main(["policy", "explain", "decision.json", "--html", "two.html"]) == 0
    assert "treasury 1" in (tmp_path / "two.html").read_text()


def test_a_page_that_cannot_be_written_or_made_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="cannot be written"):
        write_html(tmp_path / "nowhere" / "x.html", refused().to_json())
    with pytest.raises(BadInput, match="no Decision"):
        write_html(tmp_path / "x.html", {})
    write_html(None, {})
