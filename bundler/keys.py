"""Where the executor's key comes from: a file, a keystore, a variable or an inherited descriptor, never an argument."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from eth_account import Account

from contracts.eoa import Eoa
from contracts.errors import BadInput, SetupError


def read_secret(path: Path, what: str = "the key file") -> str:
    """The text of a file that only its owner may read. Raises SetupError."""
    try:
        mode = path.stat().st_mode
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"{what} {path} cannot be read: {error}") from None
    if stat.S_IMODE(mode) & 0o077:
        raise SetupError(f"{what} {path} can be read by others (mode {stat.S_IMODE(mode):04o}): chmod 600 {path}")
    return text


def _raw(text: str, where: str) -> Eoa:
    digits = text.strip().removeprefix("0x")
    try:
        key = bytes.fromhex(digits)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise BadInput(f"{where} must hold one private key, 64 hex digits")
    return Eoa(key)


@dataclass(frozen=True, slots=True)
class KeyFile:
    """64 hex digits in a file of mode 0600."""

    path: Path

    def load(self) -> Eoa:
        return _raw(read_secret(self.path), f"the key file {self.path}")


@dataclass(frozen=True, slots=True)
class Keystore:
    """A v3 keystore and a file of mode 0600 with its password."""

    path: Path
    password_file: Path

    def load(self) -> Eoa:
        password = read_secret(self.password_file).rstrip("\r\n")
        try:
            return Eoa(bytes(Account.decrypt(json.loads(self.path.read_text()), password)))
        except OSError as error:
            raise SetupError(f"the keystore {self.path} cannot be read: {error}") from None
        except (ValueError, KeyError, TypeError):
            raise SetupError(f"the keystore {self.path} is damaged, or the password is wrong") from None


@dataclass(frozen=True, slots=True)
class KeyVariable:
    """An environment variable; it is removed from the environment once read."""

    name: str

    def load(self) -> Eoa:
        text = os.environ.pop(self.name, None)
        if text is None:
            raise SetupError(f"the environment variable {self.name} with the executor's key is not set")
        return _raw(text, f"the environment variable {self.name}")


@dataclass(frozen=True, slots=True)
class KeyDescriptor:
    """An inherited file descriptor; it is closed once read."""

    fd: int

    def load(self) -> Eoa:
        try:
            with os.fdopen(self.fd) as stream:
                text = stream.read(200)
        except (OSError, UnicodeDecodeError) as error:
            raise SetupError(f"file descriptor {self.fd} cannot be read: {error}") from None
        return _raw(text, f"file descriptor {self.fd}")


KeySource = KeyFile | Keystore | KeyVariable | KeyDescriptor
