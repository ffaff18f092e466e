"""The files that know how accounts come to life: saved whole, read back the same, and never believed when damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.bindings import AccountConfig, ModuleInit, ecdsa_owner
from contracts.errors import BadInput
from contracts.types import keccak
from wallet.account import Birth
from wallet.registry import KnownAccount, Registry

OWNER, FACTORY, MODULE = (keccak(name)[:20] for name in (b"owner", b"factory", b"module"))


def known(salt: bytes = keccak(b"salt"), *, validator: bytes | None = MODULE) -> KnownAccount:
    config = AccountConfig(ecdsa_owner(OWNER), MODULE, 172_800, (3, 2, 1), (ModuleInit(1, MODULE, b"\x01\x02"),))
    return KnownAccount(keccak(salt)[:20], 1337, "v0.8", validator, Birth(FACTORY, config, salt))


@given(st.binary(min_size=32, max_size=32), st.booleans())
def test_an_account_survives_its_file(salt: bytes, guarded: bool) -> None:
    account = known(salt, validator=MODULE if guarded else None)
    assert KnownAccount.from_json(json.loads(json.dumps(account.to_json()))) == account


def test_what_was_saved_is_found_again(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "accounts")
    first, second = known(), known(keccak(b"another"))
    registry.save(first)
    registry.save(second)
    registry.save(first)
    assert registry.find(first.address, 1337) == first
    assert sorted(account.address for account in registry.all()) == sorted([first.address, second.address])


def test_an_account_that_was_never_saved_is_not_found(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    registry.save(known())
    assert registry.find(known().address, 10) is None
    assert registry.find(OWNER, 1337) is None


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", "null", '{"address": 1}'])
def test_a_damaged_file_says_what_to_do(tmp_path: Path, damage: str) -> None:
    registry = Registry(tmp_path)
    path = registry.save(known())
    path.write_text(damage)
    with pytest.raises(BadInput, match="restore it from a backup"):
        registry.find(known().address, 1337)
    with pytest.raises(BadInput):
        registry.all()


def test_a_file_under_another_accounts_name_is_damaged(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    path, other = registry.save(known()), known(keccak(b"other"))
    path.rename(registry._path(other.address, 1337))
    with pytest.raises(BadInput, match="another account"):
        registry.find(other.address, 1337)


def test_a_strange_file_in_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "x-0x12.json").write_text("{}")
    with pytest.raises(BadInput):
        Registry(tmp_path).all()
