"""A decision judged again from its record gives the same bytes, and says exactly what differs when it does not."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import BadInput, SetupError
from contracts.types import to_hex
from policies import Decision, Model, load
from tests.policies.rig import NOW_S, closing, example, facts_of, opening, portfolio
from tests.wallet.test_engine import POLICY, engine_of
from wallet import replay as module
from wallet.audit import AuditLog
from wallet.cli.main import main
from wallet.engine import Engine
from wallet.replay import bundle_of, replay

FUND = load(example("conservative_fund"))


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return engine_of(FUND, tmp_path)


def recorded(engine: Engine, decision: Decision) -> Any:
    return bundle_of(engine.log, to_hex(decision.id))


@pytest.mark.parametrize(
    "facts",
    [
        opening(FUND),
        opening(FUND, after=portfolio("400"), latched=frozenset({"leverage"})),
        opening(FUND, succeeded=False, revert_data=b"\x08\xc3"),
        closing(FUND),
        facts_of(FUND, [], prices=()),
    ],
    ids=["allowed", "refused", "reverting", "closing", "without prices"],
)
def test_a_replay_gives_the_same_bytes(engine: Engine, facts: Any) -> None:
    decision = engine.decide(facts, NOW_S)
    found = replay(json.loads(json.dumps(recorded(engine, decision))))
    assert found.identical, found.differences
    assert found.decision.to_bytes() == decision.to_bytes()
    assert found.id == to_hex(decision.id)
    assert found.notes == ()


def test_it_needs_neither_the_policy_file_nor_another_engine(engine: Engine, tmp_path: Path) -> None:
    decision = engine.decide(opening(FUND), NOW_S)
    engine.log.close()
    assert replay(bundle_of(AuditLog(tmp_path / "audit.db"), "1")).decision == decision


def test_an_attestation_leads_to_its_decision(engine: Engine) -> None:
    decision = engine.decide(opening(FUND), NOW_S)
    engine.log.append("attestation", {"decision": to_hex(decision.id), "userOpHash": "0x12", "account": "x", "at": 1})
    assert bundle_of(engine.log, "2")["decision"] == decision.to_json()


def test_a_figure_that_comes_out_different_is_named_with_both_values(engine: Engine) -> None:
    bundle = recorded(engine, engine.decide(opening(FUND), NOW_S))
    row = bundle["decision"]["limits"][0]
    then, row["after"] = row["after"], "1.5"
    found = replay(bundle)
    assert not found.identical
    assert [(d.path, d.recorded, d.now) for d in found.differences] == [("limits[0].after", "1.5", then)]
    assert 'limits[0].after: recorded "1.5"' in str(found.differences[0])


def test_another_seawall_and_another_model_are_noted(engine: Engine) -> None:
    bundle = recorded(engine, engine.decide(opening(FUND), NOW_S))
    bundle["seawall"] = "0.0.9"
    bundle["decision"]["models"] = [{"name": "black76", "version": "1", "backend": "numpy"}]
    found = replay(bundle)
    assert found.notes[0].startswith("recorded by Seawall 0.0.9, this is ")
    assert "model black76: version 1 on numpy then, none now" in found.notes
    assert [d.path for d in found.differences] == ["models"]


def test_another_backend_alone_is_no_difference(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = recorded(engine, engine.decide(opening(FUND), NOW_S))
    real = module.evaluate

    def with_model(*arguments: Any) -> Decision:
        return replace(real(*arguments), models=(Model("black76", "1", "numba"),))

    monkeypatch.setattr(module, "evaluate", with_model)
    bundle["decision"]["models"] = [{"name": "black76", "version": "1", "backend": "numpy"}]
    found = replay(bundle)
    assert found.identical
    assert found.notes == ("model black76: version 1 on numpy then, version 1 on numba now",)
    assert found.id == to_hex(found.decision.id)


def test_facts_of_an_older_form_are_judged_and_said_so(engine: Engine) -> None:
    from contracts.types import keccak
    from policies.canonical import FACTS_TAG, canonical_bytes

    bundle = recorded(engine, engine.decide(opening(FUND), NOW_S))
    del bundle["facts"]["history"]
    bundle["decision"]["facts_hash"] = to_hex(keccak(FACTS_TAG + canonical_bytes(bundle["facts"])))
    found = replay(bundle)
    assert [d.path for d in found.differences] == ["facts_hash"]
    assert "the form of facts has changed since" in found.notes[0]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda b: b["facts"].update(nonce="8"), "facts beside the decision are not those"),
        (lambda b: b["policy"]["document"].update(name="x"), "policy beside the decision is not the one"),
        (lambda b: b.update(form="2"), "no recorded decision of the form"),
        (lambda b: b.pop("decision"), "no recorded decision"),
        (lambda b: b["decision"].pop("models"), "no recorded decision"),
    ],
)
def test_a_bundle_that_contradicts_itself_is_refused(engine: Engine, damage: Any, words: str) -> None:
    bundle = copy.deepcopy(recorded(engine, engine.decide(opening(FUND), NOW_S)))
    damage(bundle)
    with pytest.raises(BadInput, match=words):
        replay(bundle)


def test_a_decision_whose_facts_are_gone_cannot_be_replayed(engine: Engine) -> None:
    decision = engine.decide(opening(FUND), NOW_S)
    with engine.log.transaction() as log:
        log.db.execute("DELETE FROM facts")
    with pytest.raises(SetupError, match="facts of entry 1 are not in"):
        recorded(engine, decision)


def test_the_command_replays_by_number_and_from_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    engine = engine_of(POLICY, tmp_path)
    engine.decide(opening(POLICY, after=portfolio("400")), NOW_S)
    engine.log.close()
    assert main(["policy", "replay", "1", "--log", "audit.db", "--save", "one.json"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("DENY by policy test 1")
    assert "the same bytes" in out
    assert main(["policy", "replay", "one.json", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["identical"] is True
    (tmp_path / "two.json").write_text(
        (tmp_path / "one.json").read_text().replace('"outcome": "deny"', '"outcome": "allow"')
    )
    assert main(["policy", "replay", "two.json"]) == 7
    assert 'outcome: recorded "allow", now "deny"' in capsys.readouterr().out
    assert main(["policy", "replay", "5", "--log", "audit.db"]) == 2
    (tmp_path / "bad.json").write_text("{")
    assert main(["policy", "replay", "bad.json"]) == 2
