"""`seawall policy audit`: the log from the command line."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from contracts.types import checksum, keccak
from tests.policies.rig import ACCOUNT, NOW_S, opening
from tests.wallet.test_engine import KEY, POLICY, allowed, attest, engine_of
from wallet.audit import AuditLog
from wallet.cli.main import main
from wallet.engine import Engine
from wallet.keystore import Keystore, Passphrase


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's machine whose engine has decided once and attested once about one account of chain 1337."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    folder = tmp_path / "data/seawall/engine"
    made = engine_of(POLICY, folder)
    engine = Engine(POLICY, KEY, 1337, made.risk_validator, AuditLog(folder / f"1337-{checksum(ACCOUNT)}.db"))
    decision, op = allowed(engine, 7)
    assert engine.decide(opening(POLICY, nonce=7, intent_hash=decision.intent_hash), NOW_S) == decision
    attest(engine, (decision, op))
    engine.log.close()
    return tmp_path


def answer(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


@pytest.mark.usefixtures("here")
def test_a_sound_log_verifies(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "audit", "verify"]) == 0
    assert capsys.readouterr().out.startswith("sound: 2 entries, 1 sets of facts, 1 policies; signed up to entry 2")
    assert main(["policy", "audit", "verify", "--json"]) == 0
    assert answer(capsys)["engines"] == [checksum(KEY.address)]


def test_a_log_that_was_touched_exits_3_and_says_where(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = here / f"data/seawall/engine/1337-{checksum(ACCOUNT)}.db"
    db = sqlite3.connect(path)
    db.execute("DROP TRIGGER entries_stay")
    db.execute("""UPDATE entries SET body = replace(body, '"allow"', '"deny"') WHERE seq = 1""")
    db.commit()
    db.close()
    assert main(["policy", "audit", "verify", "--log", str(path)]) == 3
    assert "entry 1 (decision) does not fit its hash" in capsys.readouterr().out


@pytest.mark.usefixtures("here")
def test_tail_and_show_say_what_was_decided(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "audit", "tail"]) == 0
    out = capsys.readouterr().out
    assert "decision" in out
    assert "attestation" in out
    assert main(["policy", "audit", "tail", "-n", "1", "--json"]) == 0
    (last,) = answer(capsys)
    assert last["kind"] == "attestation"
    assert main(["policy", "audit", "show", last["body"]["decision"]]) == 0
    assert "ALLOW by policy test 1" in capsys.readouterr().out
    assert main(["policy", "audit", "show", "2"]) == 0
    assert last["body"]["userOpHash"] in capsys.readouterr().out
    assert main(["policy", "audit", "show", "77"]) == 2
    assert "nothing is recorded as 77" in capsys.readouterr().err


def test_which_log_is_asked_when_there_are_several(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = AuditLog(here / f"data/seawall/engine/1-{checksum(ACCOUNT)}.db")
    other.append("note", {})
    assert main(["policy", "audit", "verify"]) == 2
    assert "which log?" in capsys.readouterr().err
    (here / "seawall.toml").write_text("chain_id = 1337\n")
    assert main(["policy", "audit", "verify"]) == 0


def test_a_head_is_signed_and_verified_against(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Keystore(here / "data/seawall/keystore")
    store.add("engine", keccak(b"an engine"), Passphrase("long enough a phrase"), kdf_n=2)
    phrase = here / "phrase"
    phrase.touch(mode=0o600)
    phrase.write_text("long enough a phrase")
    (here / "seawall.toml").write_text('[keys]\nengine = "engine"\n')
    assert main(["policy", "audit", "head", "--passphrase-file", str(phrase)]) == 0
    (here / "head.json").write_text(capsys.readouterr().out)
    assert main(["policy", "audit", "verify", "--head", "head.json", "--json"]) == 0
    assert answer(capsys)["signedUntil"] == 2
    (here / "head.json").write_text("nonsense")
    assert main(["policy", "audit", "verify", "--head", "head.json"]) == 2
