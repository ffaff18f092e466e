"""`seawall policy`: exit codes, lines, and a Decision from recorded facts or from the node."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from contracts import bindings as b
from contracts.bindings import RiskState
from contracts.devnet import Devnet
from contracts.eoa import TransactionSender
from contracts.errors import BadInput
from contracts.types import checksum, to_hex
from policies import Facts, Portfolio
from policies.calls import decode_calls
from policies.document import load
from policies.portfolio import Holding, Order, Outstanding, Price
from tests.wallet.keeper_rig import Rig, rig_on
from wallet.cli.devnet import describe
from wallet.cli.main import main
from wallet.recorded import facts_from_json, facts_to_json

ACCOUNT, USDC = b"\x11" * 20, b"\x22" * 20
POLICY = """\
schema: 1
name: treasury
version: "1"
variables:
  most: "1000"
limits:
  - id: cash
    metric: gross_notional
    max: ${most}
calls:
  - target: usdc
    functions: [approve]
    args:
      spender: "0x3333333333333333333333333333333333333333"
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    (tmp_path / "policy.yaml").write_text(POLICY)
    return tmp_path


def some_facts(data: bytes = b"") -> Facts:
    """An approval of USDC by an account that holds some."""
    call = b.Call(USDC, data or b.APPROVE.encode(b"\x33" * 20, 5))
    portfolio = Portfolio(holdings=(Holding("account", "USDC", Decimal("12.50")),))
    book = {"usdc": USDC}
    return Facts(
        chain_id=1337,
        account=ACCOUNT,
        nonce=3 << 64,
        intent_hash=b"\x44" * 32,
        block_number=9,
        block_hash=b"\x55" * 32,
        block_time_s=1_700_000_000,
        state=RiskState.ACTIVE,
        policy_on_chain=load(POLICY).policy_id,
        policy_epoch=1,
        calls=decode_calls(ACCOUNT, b.encode_execute([call]), book),
        succeeded=True,
        revert_data=b"",
        before=portfolio,
        after=portfolio,
        prices=(Price("ETH", Decimal("3000.25"), 1_700_000_000, "feed"),),
        orders=(Order("perp", "ETH", True, None),),
        book=book,
        outstanding=(Outstanding(b"\x66" * 32, 2, 1_700_000_100),),
        latched=frozenset({"cash"}),
    )


def write(path: Path, body: Any) -> str:
    path.write_text(json.dumps(body))
    return str(path)


def answer(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_a_sound_policy_has_no_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "lint", "policy.yaml", "--json"]) == 0
    assert answer(capsys)["ok"] is True


def test_lint_names_every_problem_with_file_and_line_and_exits_2(
    capsys: pytest.CaptureFixture[str], here: Path
) -> None:
    (here / "policy.yaml").write_text(POLICY.replace("gross_notional", "gros_notional").replace("most}", "mots}"))
    assert main(["policy", "lint", "policy.yaml"]) == 2
    out = capsys.readouterr().out
    assert "policy.yaml:8:" in out
    assert "policy.yaml:9:" in out
    assert main(["policy", "lint", "policy.yaml", "--json"]) == 2
    assert {problem["line"] for problem in answer(capsys)["problems"]} >= {8, 9}


def test_a_parent_is_read_from_beside_the_file(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    (here / "child.yaml").write_text('schema: 1\nname: child\nversion: "2"\nextends: policy.yaml\n')
    assert main(["policy", "id", "child.yaml"]) == 0
    capsys.readouterr()
    (here / "child.yaml").write_text('schema: 1\nname: child\nversion: "2"\nextends: nowhere.yaml\n')
    assert main(["policy", "lint", "child.yaml"]) == 2
    assert "child.yaml:4:" in capsys.readouterr().out


def test_the_id_is_that_of_the_resolved_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "id", "policy.yaml"]) == 0
    plain = capsys.readouterr().out.strip()
    assert plain == to_hex(load(POLICY).policy_id)
    assert main(["policy", "id", "policy.yaml", "--var", "most=999", "--json"]) == 0
    assert answer(capsys)["policy_id"] != plain


def test_a_policy_with_errors_has_no_id(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    (here / "policy.yaml").write_text("schema: 1\n")
    assert main(["policy", "id", "policy.yaml", "--json"]) == 2
    assert answer(capsys)["error"]["data"]


def test_the_schema_is_a_json_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "schema"]) == 0
    assert answer(capsys)["$schema"].startswith("https://json-schema.org/")


def test_every_metric_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "explain", "--json"]) == 0
    names = [metric["name"] for metric in answer(capsys)]
    assert "leverage" in names
    for name in names:
        assert main(["policy", "explain", name, "--json"]) == 0
        assert answer(capsys)["definition"]
    assert main(["policy", "explain", "levrage"]) == 2
    assert "leverage" in capsys.readouterr().err


def test_recorded_facts_come_back_exactly() -> None:
    facts = some_facts()
    assert facts_from_json(json.loads(json.dumps(facts_to_json(facts)))) == facts


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"nonce": 5}, "facts.nonce must be a text"),
        ({"nonce": "x"}, "facts.nonce is malformed"),
        ({"state": "LOST"}, "facts.state is malformed"),
        ({"succeeded": "true"}, "facts.succeeded must be true or false"),
        ({"prices": [{}]}, r"facts\.prices\[0\]\.asset is missing"),
        ({"surprise": "1"}, "facts.surprise is unknown"),
        ({"account": "0x1"}, "facts.account is malformed"),
    ],
)
def test_damaged_facts_name_the_place(change: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        facts_from_json(facts_to_json(some_facts()) | change)


def test_an_allowed_operation_exits_0_with_its_decision(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    recorded = write(here / "facts.json", facts_to_json(replace(some_facts(), outstanding=())))
    assert main(["policy", "check", "policy.yaml", "--facts", recorded, "--json"]) == 0
    assert answer(capsys)["outcome"] == "allow"


def test_a_denied_operation_exits_5_and_says_why(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    denied = some_facts(b.TRANSFER.encode(b"\x33" * 20, 5))
    recorded = write(here / "facts.json", facts_to_json(denied))
    assert main(["policy", "check", "policy.yaml", "--facts", recorded]) == 5
    assert capsys.readouterr().out.startswith("DENY by policy treasury")
    assert main(["policy", "check", "policy.yaml", "--facts", recorded, "--json"]) == 5
    decision = answer(capsys)
    assert decision["outcome"] == "deny"
    assert main(["policy", "explain", write(here / "decision.json", decision)]) == 0
    assert capsys.readouterr().out.startswith("DENY by policy treasury")


def test_check_wants_exactly_one_source(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "check", "policy.yaml"]) == 2
    assert "exactly one of --facts, --op and --calls" in capsys.readouterr().err


@pytest.fixture
async def rig(chain: Devnet, tmp_path: Path) -> AsyncIterator[Rig]:
    async with rig_on(chain, tmp_path) as rig:
        yield rig


async def test_calls_are_simulated_on_the_node_and_their_facts_can_be_kept(
    rig: Rig, capsys: pytest.CaptureFixture[str], here: Path
) -> None:
    account = await rig.create_account()
    (here / "devnet.json").write_text(json.dumps(describe(rig.net)))
    (here / "seawall.toml").write_text(f'deployments = "devnet.json"\naccount = "{checksum(account)}"\n')
    data = b.APPROVE.encode(b"\x33" * 20, 5)
    calls = write(here / "calls.json", [{"target": checksum(rig.net.addresses.usdc), "data": to_hex(data)}])
    arguments = ["policy", "check", "policy.yaml", "--calls", calls, "--save-facts", "facts.json", "--json"]
    # This account has no policy on chain, so the answer is a denial; it is the same one from the facts that were kept.
    assert await asyncio.to_thread(main, arguments) == 5
    live = answer(capsys)
    assert any(call["rule"] for call in live["calls"])
    assert main(["policy", "check", "policy.yaml", "--facts", "facts.json", "--json"]) == 5
    assert answer(capsys) == live


async def test_past_prices_of_the_settings_are_the_returns_that_limits_look_at(
    rig: Rig, capsys: pytest.CaptureFixture[str], here: Path
) -> None:
    account = await rig.create_account()
    (here / "devnet.json").write_text(json.dumps(describe(rig.net)))
    midnight = int((await rig.rpc.block())["timestamp"], 16) // 86_400 * 86_400
    rows = [f"{midnight - 86_400 * n},ETH,{3_000 + n}" for n in range(40)]
    (here / "closes.csv").write_text("time,asset,price\n" + "\n".join(rows))
    settings = f'deployments = "devnet.json"\naccount = "{checksum(account)}"\nhistory = ["closes.csv"]\n'
    (here / "seawall.toml").write_text(settings)
    await TransactionSender(rig.net.rpc, rig.net.accounts.deployer, rig.net.chain_id).transact(account, value=10**18)
    target = {"target": checksum(rig.net.addresses.usdc), "data": to_hex(b.APPROVE.encode(b"\x33" * 20, 5))}
    calls = write(here / "calls.json", [target])
    for window, said in (("30d", None), ("60d", "39 of 86400 s each")):
        text = f"schema: 1\nname: tail\nversion: '1'\nlimits: [{{id: var, metric: value_at_risk, max: 1, window: {window}}}]\n"
        (here / "tail.yaml").write_text(text)
        arguments = ["policy", "check", "tail.yaml", "--calls", calls, "--save-facts", "facts.json", "--json"]
        assert await asyncio.to_thread(main, arguments) == 5
        live = answer(capsys)
        kept = json.loads((here / "facts.json").read_text())
        assert (kept["returns"] == []) is (said is not None)
        if said is None:
            assert [(r["asset"], r["source"], len(r["values"])) for r in kept["returns"]] == [("ETH", "closes.csv", 30)]
            assert live["limits"][0]["after"] is not None
        else:
            assert any(said in why for why in live["objections"])
        assert main(["policy", "check", "tail.yaml", "--facts", "facts.json", "--json"]) == 5
        assert answer(capsys) == live


async def test_prices_of_the_settings_are_held_against_the_feeds(
    rig: Rig, capsys: pytest.CaptureFixture[str], here: Path
) -> None:
    account = await rig.create_account()
    (here / "devnet.json").write_text(json.dumps(describe(rig.net)))
    now_s = int((await rig.rpc.block())["timestamp"], 16)
    (here / "prices.csv").write_text(f"time,asset,price\n{now_s - 10},ETH,1234.5\n")
    settings = f'deployments = "devnet.json"\naccount = "{checksum(account)}"\nprices = ["prices.csv"]\n'
    (here / "seawall.toml").write_text(settings)
    target = {"target": checksum(rig.net.addresses.usdc), "data": to_hex(b.APPROVE.encode(b"\x33" * 20, 5))}
    calls = write(here / "calls.json", [target])
    assert await asyncio.to_thread(main, ["policy", "check", "policy.yaml", "--calls", calls, "--json"]) == 5
    assert any("the sources of ETH contradict each other" in why for why in answer(capsys)["objections"])
