"""A profile's keys and names: found without opening anything, opened with one passphrase or one for each."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from contracts.devnet.accounts import devnet_key
from contracts.eoa import Eoa
from contracts.errors import BadInput
from contracts.types import keccak
from policies.document import load
from tests.wallet.trading_floor import POLICY
from wallet import setup
from wallet.config import Profile, resolve
from wallet.desk import open_keys, policy_of, roles_of
from wallet.keystore import Keystore, Passphrase, PassphraseSource

PHRASE = "a passphrase of some length"


@pytest.fixture
def profile(tmp_path: Path) -> Profile:
    store = Keystore(tmp_path)
    for name in ("owner", "engine", "guardian-2"):
        store.add(name, devnet_key(name), Passphrase(PHRASE), kdf_n=2)
    flags = {"keystore": tmp_path, "keys.owner": "owner", "keys.engine": "engine", "read_only": False}
    return resolve(flags, environment={}, directory=tmp_path, user_file=tmp_path / "none").profile


def test_roles_are_the_profiles_keys_and_else_entries_of_their_name(profile: Profile) -> None:
    found = roles_of(profile)
    assert found == {
        "owner": Eoa(devnet_key("owner")).address,
        "engine": Eoa(devnet_key("engine")).address,
        "guardian_2": Eoa(devnet_key("guardian-2")).address,
    }


def test_a_descriptor_gives_one_passphrase_for_both_keys(profile: Profile) -> None:
    reader, writer = os.pipe()
    os.write(writer, PHRASE.encode() + b"\n")
    os.close(writer)
    opened = open_keys(profile, ["owner", "engine"], PassphraseSource(fd=reader))
    os.close(reader)
    assert opened["engine"].address == Eoa(devnet_key("engine")).address


def test_a_read_only_profile_opens_nothing(profile: Profile) -> None:
    with pytest.raises(BadInput, match="read-only"):
        open_keys(replace(profile, read_only=True), ["owner"], PassphraseSource())


def test_a_role_without_key_is_named(profile: Profile) -> None:
    with pytest.raises(BadInput, match=r"keys\.guardian"):
        open_keys(profile, ["guardian"], PassphraseSource())


def test_a_profile_without_policy_has_none(profile: Profile) -> None:
    assert policy_of(profile) is None


def test_a_policy_that_wants_more_engines_than_there_are_makes_no_account() -> None:
    policy = load(POLICY + "attestation: {engines: [engine, engine_2], threshold: 2}\n")
    with pytest.raises(BadInput, match="2 engines"):
        setup.guarded_config(policy, {}, owner=keccak(b"o")[:20], engines=(keccak(b"e")[:20],), now_s=0)
