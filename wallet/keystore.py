"""Keys at rest: version 3 keystore files, the format that geth, cast and every wallet read, one file a key, opened by a passphrase.

Nothing here takes a secret as a command-line argument, and no secret enters an exception, a `repr` or a log. Passphrases come from
a prompt, a file that only its owner can read, or a file descriptor (`SEAWALL_PASSPHRASE_FILE`, `SEAWALL_PASSPHRASE_FD`).
"""

from __future__ import annotations

import json
import os
import re
import stat
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from getpass import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import BadInput, SetupError
from contracts.types import Address, checksum

if TYPE_CHECKING:
    from contracts.eoa import Eoa

SCRYPT_N = 2**18
"""scrypt's cost: about 0.7 s and 256 MiB a try. Tests and the devnet may ask for less."""
MIN_PASSPHRASE = 8
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}\Z")
_PRIVATE_KEY = re.compile(r"\s*(?:0x)?([0-9a-fA-F]{64})\s*\Z")
_MAX_SECRET_BYTES = 4096


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """What a keystore file says without being opened. `kdf` such as `scrypt n=262144`."""

    name: str
    address: Address
    path: Path
    kdf: str

    def to_json(self) -> dict[str, str]:
        return {"name": self.name, "address": checksum(self.address), "path": str(self.path), "kdf": self.kdf}


class Passphrase:
    """A secret text. Only `reveal()` shows it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "Passphrase(***)"


@dataclass(frozen=True, slots=True)
class PassphraseSource:
    """Where to read a passphrase: a file, a descriptor, or (neither given) a prompt on the terminal."""

    file: Path | None = None
    fd: int | None = None

    @classmethod
    def of(cls, file: Path | None, fd: int | None, environment: Mapping[str, str]) -> PassphraseSource:
        """What the caller gave, else what the environment names. Raises BadInput when both are given or one is malformed."""
        if file is not None and fd is not None:
            raise BadInput("give the passphrase by --passphrase-file or by --passphrase-fd, not both")
        if file is not None or fd is not None:
            return cls(file, fd)
        if number := environment.get("SEAWALL_PASSPHRASE_FD"):
            if not number.isdecimal():
                raise BadInput("SEAWALL_PASSPHRASE_FD must be the number of an open file descriptor, such as 3")
            return cls(fd=int(number))
        if path := environment.get("SEAWALL_PASSPHRASE_FILE"):
            return cls(file=Path(path))
        return cls()

    def read(self, what: str, *, confirm: bool = False, prompt: Callable[[str], str] | None = None) -> Passphrase:
        """The passphrase of `what`. Asks twice when `confirm` and on a terminal. Raises BadInput, SetupError."""
        if self.file is not None:
            return Passphrase(read_secret_file(self.file, "passphrase file").rstrip("\r\n"))
        if self.fd is not None:
            return Passphrase(read_secret_fd(self.fd).rstrip("\r\n"))
        if prompt is None:
            if not sys.stdin.isatty():
                raise BadInput(
                    f"the passphrase of {what} is needed and there is no terminal to ask on: give --passphrase-file, "
                    "--passphrase-fd, or set SEAWALL_PASSPHRASE_FILE or SEAWALL_PASSPHRASE_FD"
                )
            prompt = getpass
        first = prompt(f"passphrase of {what}: ")
        if confirm and prompt("the same again: ") != first:
            raise BadInput("the two passphrases differ; nothing was written")
        return Passphrase(first)


def read_secret_file(path: Path, what: str) -> str:
    """The text of a secret file. Raises SetupError if it cannot be read or if anyone but its owner could."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise SetupError(f"the {what} {path} cannot be read: {error.strerror}") from None
    with os.fdopen(descriptor, "rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        if stat.S_ISREG(mode) and mode & 0o077:
            raise SetupError(
                f"the {what} {path} can be read by others (mode {stat.S_IMODE(mode):04o}): run `chmod 600 {path}`, "
                "and change the secret if the machine is shared"
            )
        return _text(file.read(_MAX_SECRET_BYTES + 1), f"the {what} {path}")


def read_secret_fd(fd: int) -> str:
    """The text that an open descriptor (a pipe, a here-string) gives, to its end. Raises BadInput if it is not open."""
    chunks = b""
    try:
        while len(chunks) <= _MAX_SECRET_BYTES and (chunk := os.read(fd, _MAX_SECRET_BYTES + 1)):
            chunks += chunk
    except OSError as error:
        raise BadInput(
            f"file descriptor {fd} cannot be read: {error.strerror}; open it as in `seawall ... 3< file`"
        ) from None
    return _text(chunks, f"file descriptor {fd}")


def _text(data: bytes, where: str) -> str:
    if len(data) > _MAX_SECRET_BYTES:
        raise BadInput(f"{where} holds more than {_MAX_SECRET_BYTES} bytes; is it the right one?")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise BadInput(f"{where} is not UTF-8 text; is it the right one?") from None


def parse_private_key(text: str, where: str) -> bytes:
    """32 bytes from 64 hex digits. Raises BadInput naming `where`, never the text."""
    found = _PRIVATE_KEY.match(text)
    if found is None:
        raise BadInput(f"{where} must hold one private key: 64 hex digits, with or without 0x")
    return bytes.fromhex(found[1])


class Keystore:
    """A directory (0700) of key files (0600), `NAME.json` each."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def create(self, name: str, passphrase: Passphrase, *, kdf_n: int = SCRYPT_N) -> KeyInfo:
        """Make a new random key. Raises BadInput if the name is malformed or taken, or the passphrase too short."""
        import secrets

        from contracts.eoa import Eoa

        while True:
            key = secrets.token_bytes(32)
            try:
                Eoa(key)
            except BadInput:  # zero or beyond the curve order: once in 2^128
                continue
            return self.add(name, key, passphrase, kdf_n=kdf_n)

    def require_free(self, name: str) -> None:
        """Raises BadInput if the name is malformed or taken: ask before asking people for secrets."""
        if self._path(name).exists():
            raise _taken(name, self._path(name))

    def add(self, name: str, key: bytes, passphrase: Passphrase, *, kdf_n: int = SCRYPT_N) -> KeyInfo:
        """Encrypt and store an existing key. Raises BadInput as `create` does; a file that is there is never overwritten."""
        from eth_account import Account

        from contracts.eoa import Eoa

        self.require_free(name)
        path = self._path(name)
        if len(passphrase.reveal()) < MIN_PASSPHRASE:
            raise BadInput(f"a passphrase needs at least {MIN_PASSPHRASE} characters; nothing was written")
        if kdf_n < 2 or kdf_n & (kdf_n - 1):
            raise BadInput(f"scrypt's n must be a power of two, got {kdf_n}")
        address = Eoa(key).address
        content: dict[str, Any] = dict(Account.encrypt(key, passphrase.reveal(), kdf="scrypt", iterations=kdf_n))
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_new(path, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode(), lambda: _taken(name, path))
        return KeyInfo(name, address, path, f"scrypt n={kdf_n}")

    def entries(self) -> list[KeyInfo]:
        """Every key, by name, without opening any. Files that are no keystores are passed over."""
        found = []
        for path in sorted(self.directory.glob("*.json")) if self.directory.is_dir() else []:
            try:
                found.append(self.info(path.stem))
            except (BadInput, SetupError):
                continue
        return found

    def info(self, name: str) -> KeyInfo:
        """What the file of `name` says without being opened. Raises BadInput if there is none, SetupError if it is damaged."""
        path = self._path(name)
        content = self._load(name, path)
        try:
            address = bytes.fromhex(str(content["address"]).removeprefix("0x"))
            crypto = content["crypto"]
            kdf = str(crypto["kdf"])
            cost = crypto["kdfparams"].get("n", crypto["kdfparams"].get("c"))
        except (KeyError, TypeError, ValueError, AttributeError):
            raise SetupError(f"{path} is not a version 3 keystore file: restore it from a backup") from None
        if len(address) != 20:
            raise SetupError(f"{path} is not a version 3 keystore file: its address has {len(address)} bytes")
        return KeyInfo(name, address, path, f"{kdf} {'n' if kdf == 'scrypt' else 'c'}={cost}")

    def open(self, name: str, passphrase: Passphrase) -> Eoa:
        """The key of `name`. Raises BadInput for a wrong passphrase or unknown name, SetupError for a damaged or exposed file."""
        from eth_account import Account

        from contracts.eoa import Eoa

        info = self.info(name)
        mode = stat.S_IMODE(info.path.stat().st_mode)
        if mode & 0o077:
            raise SetupError(
                f"the keystore file {info.path} can be read by others (mode {mode:04o}): run `chmod 600 {info.path}`"
            )
        try:
            key = bytes(Account.decrypt(self._load(name, info.path), passphrase.reveal()))
        except ValueError:
            raise BadInput(f"the passphrase does not open key {name!r} ({info.path})") from None
        except Exception as error:  # eth-keyfile reports damage through many types; their texts may quote the content
            raise SetupError(
                f"{info.path} cannot be decrypted ({type(error).__name__}): restore it from a backup"
            ) from None
        eoa = Eoa(key)
        if eoa.address != info.address:
            raise SetupError(f"{info.path} names {checksum(info.address)} but holds the key of {checksum(eoa.address)}")
        return eoa

    def _path(self, name: str) -> Path:
        if _PRIVATE_KEY.match(name):
            raise BadInput(
                "that is a private key, not a name: import it with `seawall key import`, and clear your shell's history"
            )
        if not _NAME.match(name):
            raise BadInput(
                f"a key's name has 1 to 64 lower-case letters, digits, dots, dashes or underscores, got {name[:12]!r}"
            )
        return self.directory / f"{name}.json"

    def _load(self, name: str, path: Path) -> dict[str, Any]:
        try:
            content = json.loads(path.read_bytes())
        except FileNotFoundError:
            known = ", ".join(p.stem for p in sorted(self.directory.glob("*.json"))) or "none"
            raise BadInput(f"no key is named {name!r} in {self.directory}; there are: {known}") from None
        except OSError as error:
            raise SetupError(f"the keystore file {path} cannot be read: {error.strerror}") from None
        except ValueError:
            raise SetupError(f"{path} is damaged (not JSON): restore it from a backup") from None
        if not isinstance(content, dict):
            raise SetupError(f"{path} is not a keystore file")
        return content


def _taken(name: str, path: Path) -> BadInput:
    return BadInput(f"key {name!r} exists ({path}) and is never overwritten: choose another name or move the file away")


def _write_new(path: Path, content: bytes, taken: Callable[[], BadInput]) -> None:
    """Write a 0600 file that appears whole or not at all, and only where there was none."""
    descriptor, temporary = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=path.parent)  # created 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)  # unlike rename, fails if `path` exists
        except FileExistsError:
            raise taken() from None
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise SetupError(f"cannot write {path}: {error.strerror}") from None
    finally:
        os.unlink(temporary)


@dataclass(frozen=True, slots=True)
class KeySource:
    """Where a service finds a key: a named keystore entry, a 0600 file with the hex of the key, or a descriptor that gives it."""

    name: str | None = None
    file: Path | None = None
    fd: int | None = None

    def load(self, keystore: Keystore, passphrase: PassphraseSource, role: str) -> Eoa:
        """The key. Raises BadInput if not exactly one source is set, and as the sources do."""
        from contracts.eoa import Eoa

        if sum(source is not None for source in (self.name, self.file, self.fd)) != 1:
            raise BadInput(f"the {role} key needs exactly one source: a keystore name, a key file or a file descriptor")
        if self.name is not None:
            return keystore.open(self.name, passphrase.read(f"key {self.name!r}"))
        if self.file is not None:
            return Eoa(
                parse_private_key(read_secret_file(self.file, f"{role} key file"), f"the {role} key file {self.file}")
            )
        assert self.fd is not None
        return Eoa(parse_private_key(read_secret_fd(self.fd), f"file descriptor {self.fd}"))
