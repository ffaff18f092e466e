"""`seawall policy backtest`: answers, pictures and exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wallet.cli.main import main

POLICY = """\
schema: 1
name: fund
version: "1"
limits:
  - {id: leverage, metric: leverage, max: 3.1}
calls:
  - {target: perp.clearing_house, functions: [openPosition]}
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "policy.yaml").write_text(POLICY)
    return tmp_path


def run(*arguments: str) -> int:
    return main(["policy", "backtest", "--policy", "policy.yaml", *arguments])


def test_a_strategy_over_the_crash_that_ships_along(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--strategy", "long:ETH:3", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["bars"], found["assets"]) == (1440, ["ETH"])
    (leverage,) = found["limits"]
    assert int(leverage["breached"]) > 100
    assert [event["kind"] for event in found["events"]] == ["breach", "liquidation"]


def test_without_json_the_findings_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--strategy", "long:ETH:3", "--to", "2020-03-12T08:00") == 0
    out = capsys.readouterr().out
    assert "fund 1: 120 bars of 60 s, ETH, 2020-03-12T06:00Z to 2020-03-12T08:00Z" in out
    assert "leverage [portfolio] max 3.100x: beyond" in out


@pytest.mark.parametrize(("name", "magic"), [("a.png", b"\x89PNG"), ("b.svg", b"<?xml"), ("c.pdf", b"%PDF")])
def test_the_picture_is_of_the_kind_that_its_name_says(here: Path, name: str, magic: bytes) -> None:
    pytest.importorskip("matplotlib", reason="pictures need the extra `demo`")
    assert run("--strategy", "long:ETH:3", "--plot", name) == 0
    assert (here / name).read_bytes().startswith(magic)


def test_the_same_input_gives_the_same_picture(here: Path) -> None:
    pytest.importorskip("matplotlib", reason="pictures need the extra `demo`")
    for name in ("a.svg", "b.svg"):
        assert run("--strategy", "short:ETH:2", "--plot", name) == 0
    assert (here / "a.svg").read_bytes() == (here / "b.svg").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give either --book FILE or --strategy"),
        (("--book", "b.yaml", "--strategy", "long:ETH:3"), "give either --book FILE or --strategy"),
        (("--strategy", "long:BTC:3"), "there are no bars of it: give them as --data BTC=FILE"),
        (("--strategy", "long:ETH:3", "--data", "eth_1999-01-01"), "no bars named eth_1999-01-01 ship with Seawall"),
        (("--strategy", "long:ETH:3", "--from", "noon"), "--from must be a time such as"),
        (("--strategy", "long:ETH:3", "--from", "2021-01-01"), "none is in that window"),
        (("--strategy", "long:ETH:3", "--plot", "x.gif"), "--plot writes .png, .svg or .pdf"),
        (
            ("--strategy", "long:ETH:3", "--data", "eth_2020-03-12", "--data", "eth_2021-05-19"),
            "two sets of bars of ETH",
        ),
    ],
)
def test_what_cannot_be_run_is_said_with_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert run(*arguments) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_book_with_errors_names_the_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "book.yaml").write_text("positions:\n  - {venue: perp, asset: ETH, size: big}\n")
    assert run("--book", "book.yaml") == 2
    assert "book.yaml:2:37: error: positions[0].size" in " ".join(capsys.readouterr().err.split())


def test_a_book_with_orders_says_which_would_have_been_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "book.yaml").write_text(
        "margins: [{venue: perp, collateral: 10000}]\norders:\n"
        "  - {at: 2020-03-12T07:00, venue: perp, asset: ETH, size: 100, bound: 1%}\n"
        "  - {at: 2020-03-12T07:01, venue: perp, asset: ETH, size: 200, bound: 1%}\n"
    )
    assert run("--book", "book.yaml", "--json") == 0
    orders = json.loads(capsys.readouterr().out)["orders"]
    assert [(o["order"], o["outcome"]) for o in orders] == [
        ("buy 100 ETH at perp", "allow"),
        ("buy 200 ETH at perp", "deny"),
    ]


def test_diff_says_in_words_what_changed_and_what_it_would_have_changed(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "new.yaml").write_text(POLICY.replace("3.1", "2.5"))
    assert (
        main(["policy", "diff", "policy.yaml", "new.yaml", "--strategy", "long:ETH:2.4", "--to", "2020-03-12T08:00"])
        == 0
    )
    out = capsys.readouterr().out
    assert "changed limits.leverage.max: 3.1 -> 2.5 (tighter)" in out
    assert "of 120 bars flip, the first at 2020-03-12T06" in out


def test_diff_of_one_file_with_itself_says_that_it_is_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "diff", "policy.yaml", "policy.yaml", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"same": True, "changes": [], "backtest": None}


def test_diff_with_bars_and_no_book_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "diff", "policy.yaml", "policy.yaml", "--data", "eth_2020-03-12"]) == 2
    assert "--data needs a book" in capsys.readouterr().err
