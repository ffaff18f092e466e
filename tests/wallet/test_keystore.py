"""Keys at rest: what is written, who may read it, and that no secret gets out by another way."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from contracts.errors import BadInput, SeawallError, SetupError
from contracts.types import checksum
from wallet.keystore import KeySource, Keystore, Passphrase, PassphraseSource, parse_private_key, read_secret_file

CHEAP = 2
KEY = bytes.fromhex("4646464646464646464646464646464646464646464646464646464646464646")
ADDRESS = "0x9d8A62f656a8d1615C1294fd71e9CFb3E4855A4F"  # of KEY. Source: EIP-155, example
PHRASE = Passphrase("correct horse battery staple")

# A version 3 file by another implementation. Source: Web3 Secret Storage Definition, test vector "scrypt" (go-ethereum).
FOREIGN = {
    "address": "008aeeda4d805471df9b2a5b0f38a0c3bcba786b",
    "crypto": {
        "cipher": "aes-128-ctr",
        "cipherparams": {"iv": "83dbcc02d8ccb40e466191a123791e0e"},
        "ciphertext": "d172bf743a674da9cdad04534d56926ef8358534d458fffccd4e6ad2fbde479c",
        "kdf": "scrypt",
        "kdfparams": {
            "dklen": 32,
            "n": 262144,
            "p": 8,
            "r": 1,
            "salt": "ab0c7876052600dd703518d6fc3fe8984592145b591fc8fb5c6d43190334ba19",
        },
        "mac": "2103ac29920d71da29f15d75b4a16dbe95cfd7ff8faea1056c33131d846e3097",
    },
    "id": "3198bc9c-6672-5ab3-d995-4942343ae5b6",
    "version": 3,
}
FOREIGN_KEY_ADDRESS = "0x008AeEda4D805471dF9b2A5B0f38A0C3bCBA786b"


@pytest.fixture
def keystore(tmp_path: Path) -> Keystore:
    return Keystore(tmp_path / "keys")


def secret_file(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_a_stored_key_opens_again_with_its_passphrase(keystore: Keystore) -> None:
    info = keystore.add("owner", KEY, PHRASE, kdf_n=CHEAP)
    assert checksum(info.address) == ADDRESS
    assert keystore.open("owner", PHRASE).address == info.address


def test_a_file_by_another_implementation_opens(keystore: Keystore) -> None:
    keystore.directory.mkdir()
    secret_file(keystore.directory / "geth.json", json.dumps(FOREIGN))
    eoa = keystore.open("geth", Passphrase("testpassword"))
    assert checksum(eoa.address) == FOREIGN_KEY_ADDRESS


def test_files_are_private_and_so_is_their_directory(keystore: Keystore) -> None:
    path = keystore.create("owner", PHRASE, kdf_n=CHEAP).path
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_nothing_but_the_key_file_is_left_behind(keystore: Keystore) -> None:
    keystore.create("owner", PHRASE, kdf_n=CHEAP)
    assert [p.name for p in keystore.directory.iterdir()] == ["owner.json"]


def test_a_key_is_never_overwritten(keystore: Keystore) -> None:
    before = keystore.create("owner", PHRASE, kdf_n=CHEAP).path.read_bytes()
    with pytest.raises(BadInput, match="never overwritten"):
        keystore.add("owner", KEY, PHRASE, kdf_n=CHEAP)
    assert (keystore.directory / "owner.json").read_bytes() == before


def test_two_new_keys_differ(keystore: Keystore) -> None:
    one, two = (keystore.create(name, PHRASE, kdf_n=CHEAP).address for name in ("one", "two"))
    assert one != two


@pytest.mark.parametrize("name", ["", "../owner", "Owner", "a/b", ".hidden", "x" * 65])
def test_a_name_is_no_path(keystore: Keystore, name: str) -> None:
    with pytest.raises(BadInput, match="name has 1 to 64"):
        keystore.create(name, PHRASE, kdf_n=CHEAP)


def test_keys_are_listed_without_being_opened(keystore: Keystore) -> None:
    keystore.add("owner", KEY, PHRASE, kdf_n=CHEAP)
    keystore.create("keeper", PHRASE, kdf_n=CHEAP)
    (keystore.directory / "note.json").write_text("[]")
    entries = keystore.entries()
    assert [entry.name for entry in entries] == ["keeper", "owner"]
    assert entries[1].to_json()["address"] == ADDRESS
    assert entries[1].kdf == f"scrypt n={CHEAP}"


def test_the_default_cost_is_two_to_the_eighteen(keystore: Keystore) -> None:
    assert keystore.create("owner", PHRASE).kdf == "scrypt n=262144"


def test_a_short_passphrase_is_refused(keystore: Keystore) -> None:
    with pytest.raises(BadInput, match="at least 8"):
        keystore.create("owner", Passphrase("1234567"), kdf_n=CHEAP)
    assert keystore.entries() == []


def test_an_unknown_name_is_answered_with_the_known_ones(keystore: Keystore) -> None:
    keystore.create("owner", PHRASE, kdf_n=CHEAP)
    with pytest.raises(BadInput, match="there are: owner"):
        keystore.open("keeper", PHRASE)


def test_a_key_file_that_others_can_read_is_not_opened(keystore: Keystore) -> None:
    keystore.create("owner", PHRASE, kdf_n=CHEAP).path.chmod(0o644)
    with pytest.raises(SetupError, match="chmod 600"):
        keystore.open("owner", PHRASE)


def test_a_file_that_names_another_address_is_not_used(keystore: Keystore) -> None:
    path = keystore.add("owner", KEY, PHRASE, kdf_n=CHEAP).path
    path.write_text(json.dumps(json.loads(path.read_text()) | {"address": "00" * 20}))
    with pytest.raises(SetupError, match="holds the key of"):
        keystore.open("owner", PHRASE)


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"crypto": 1}', '{"address": "zz", "crypto": {}}'])
def test_a_damaged_file_says_so(keystore: Keystore, damage: str) -> None:
    path = keystore.create("owner", PHRASE, kdf_n=CHEAP).path
    path.write_text(damage)
    with pytest.raises(SetupError, match=str(path)):
        keystore.open("owner", PHRASE)


def _wrong_passphrase(keystore: Keystore) -> None:
    keystore.add("owner", KEY, PHRASE, kdf_n=CHEAP)
    keystore.open("owner", Passphrase("another passphrase"))


def _malformed_key(_: Keystore) -> None:
    parse_private_key(KEY.hex() + "ff", "the key file")


def _bad_curve_key(keystore: Keystore) -> None:
    keystore.add("owner", b"\xff" * 32, PHRASE, kdf_n=CHEAP)


def _key_as_name(keystore: Keystore) -> None:
    keystore.open(KEY.hex(), PHRASE)


@pytest.mark.parametrize("act", [_wrong_passphrase, _malformed_key, _bad_curve_key, _key_as_name])
def test_no_secret_is_in_an_error(keystore: Keystore, act: Callable[[Keystore], None]) -> None:
    with pytest.raises(SeawallError) as caught:
        act(keystore)
    chain: BaseException | None = caught.value
    while chain is not None:
        text = repr(chain) + str(chain)
        assert KEY.hex() not in text
        assert "ff" * 32 not in text
        assert PHRASE.reveal() not in text
        assert "another passphrase" not in text
        chain = None if chain.__suppress_context__ else chain.__context__


def test_no_secret_is_in_a_repr() -> None:
    assert "horse" not in repr(PHRASE)
    assert "horse" not in str(PHRASE)


def test_a_passphrase_comes_from_a_private_file_without_its_line_end(tmp_path: Path) -> None:
    path = secret_file(tmp_path / "phrase", "two words \r\n")
    assert PassphraseSource(file=path).read("a key").reveal() == "two words "


def test_a_passphrase_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = secret_file(tmp_path / "phrase", "secret")
    path.chmod(0o640)
    with pytest.raises(SetupError, match="can be read by others"):
        read_secret_file(path, "passphrase file")


def test_a_passphrase_comes_from_a_descriptor() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"from a pipe\n")
    os.close(writing)
    assert PassphraseSource(fd=reading).read("a key").reveal() == "from a pipe"
    os.close(reading)


def test_the_environment_may_name_a_descriptor_or_a_file() -> None:
    assert PassphraseSource.of(None, None, {"SEAWALL_PASSPHRASE_FD": "7"}) == PassphraseSource(fd=7)
    assert PassphraseSource.of(None, None, {"SEAWALL_PASSPHRASE_FILE": "/p"}) == PassphraseSource(file=Path("/p"))
    assert PassphraseSource.of(None, 3, {"SEAWALL_PASSPHRASE_FILE": "/p"}) == PassphraseSource(fd=3)


def test_a_closed_descriptor_says_how_to_open_one() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    os.close(writing)
    with pytest.raises(BadInput, match="cannot be read"):
        PassphraseSource(fd=reading).read("a key")


def test_a_passphrase_is_asked_for_twice_when_it_is_new() -> None:
    answers = iter(["first one", "second one"])
    with pytest.raises(BadInput, match="differ"):
        PassphraseSource().read("a key", confirm=True, prompt=lambda _: next(answers))


def test_without_a_terminal_the_ways_to_give_a_passphrase_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with open(os.devnull) as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        with pytest.raises(BadInput, match="SEAWALL_PASSPHRASE_FD"):
            PassphraseSource().read("key 'owner'")


def test_a_service_takes_its_key_from_exactly_one_place(keystore: Keystore, tmp_path: Path) -> None:
    path = secret_file(tmp_path / "session.key", f"0x{KEY.hex()}\n")
    assert checksum(KeySource(file=path).load(keystore, PassphraseSource(), "keeper").address) == ADDRESS
    with pytest.raises(BadInput, match="exactly one source"):
        KeySource(name="keeper", file=path).load(keystore, PassphraseSource(), "keeper")
    with pytest.raises(BadInput, match="exactly one source"):
        KeySource().load(keystore, PassphraseSource(), "keeper")
