"""The sponsor's settings: a TOML file, then `SEAWALL_PAYMASTER_*` variables, then what the command line says; later ones win.

A table's key is written `budget.total_wei` on the command line and SEAWALL_PAYMASTER_BUDGET__TOTAL_WEI in the environment; lists
are comma-separated there. The signing key is read from a v3 keystore, from a file that only its owner can read, or from an open
file descriptor that SEAWALL_PAYMASTER_KEY_FD names; never from an argument.
"""

from __future__ import annotations

import json
import os
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from contracts.entrypoint import ENTRY_POINTS
from contracts.eoa import Eoa
from contracts.errors import BadInput, SetupError
from contracts.token_paymaster import MIN_POST_OP_GAS
from contracts.types import Address, Wei, parse_address, parse_hash
from paymaster.server import Limits, Offer
from paymaster.sponsor import Budget, GasCeilings, Terms
from paymaster.tokens import TokenOffer

PREFIX = "SEAWALL_PAYMASTER_"
_LISTS = {"engines", "accounts", "policies", "tokens"}
_NOT_SETTINGS = {"CONFIG", "KEY_FD", "PASSWORD_FD", "URL"}
"""Names that others read: the key's descriptor, and where our clients find this service."""


@dataclass(frozen=True, slots=True)
class KeySource:
    """Where the signing key is. At most one of `keystore` and `key_file`; neither: the descriptor in SEAWALL_PAYMASTER_KEY_FD."""

    keystore: Path | None = None
    password_file: Path | None = None
    key_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the process needs. `paymasters` and `token_paymasters` map an entry point's address to our contracts there."""

    rpc_url: str
    ledger: Path
    paymasters: tuple[tuple[Address, Address], ...]
    terms: Terms
    signer: KeySource = KeySource()
    host: str = "127.0.0.1"
    port: int = 4338
    """0 takes a free one; the line printed at start says which."""
    chain_id: int | None = None
    """None: what the node says at start."""
    min_deposit_wei: Wei = 10**16
    """Not ready below it."""
    confirmations: int = 10
    """A promise is released once a block this deep is past its expiry."""
    start_block: int | None = None
    poll_s: float = 2.0
    node_timeout_s: float = 5.0
    offer: Offer = field(default_factory=Offer)
    limits: Limits = field(default_factory=Limits)
    token_paymasters: tuple[tuple[Address, Address], ...] = ()
    erc20: TokenOffer = field(default_factory=TokenOffer)


class _File(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    rpc_url: str
    ledger: str
    risk_validator: str
    budget: Budget
    engines: list[str] = []
    paymasters: dict[str, str] = {}
    token_paymasters: dict[str, str] = {}
    erc20: TokenOffer = TokenOffer()
    gas: GasCeilings = GasCeilings()
    accounts: list[str] = []
    policies: list[str] = []
    validity_s: int = 600
    signer: KeySource = KeySource()
    host: str = "127.0.0.1"
    port: int = 4338
    chain_id: int | None = None
    min_deposit_wei: int = 10**16
    confirmations: int = 10
    start_block: int | None = None
    poll_s: float = 2.0
    node_timeout_s: float = 5.0
    offer: Offer = Offer()
    limits: Limits = Limits()


def load(file: Path | None, environment: Mapping[str, str], overrides: Mapping[str, str]) -> Settings:
    """Merge file, environment and overrides (`{"budget.total_wei": "1"}`). Raises BadInput naming the setting."""
    merged: dict[str, Any] = {}
    if file is not None:
        try:
            merged = tomllib.loads(file.read_text())
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise BadInput(f"the settings file {file} cannot be read: {error}") from None
    for name, value in sorted(environment.items()):
        if name.startswith(PREFIX) and name.removeprefix(PREFIX) not in _NOT_SETTINGS:
            _put(merged, name.removeprefix(PREFIX).lower().split("__"), value)
    for name, value in overrides.items():
        _put(merged, name.split("."), value)
    return from_mapping(merged)


def _put(tree: dict[str, Any], path: list[str], value: str) -> None:
    for part in path[:-1]:
        tree = tree.setdefault(part, {})
        if not isinstance(tree, dict):
            raise BadInput(f"setting {'.'.join(path)}: {part} is not a table")
    tree[path[-1]] = [item.strip() for item in value.split(",")] if path[-1] in _LISTS else value


def from_mapping(fields: Mapping[str, Any]) -> Settings:
    """Read the form of the settings file. Raises BadInput naming the setting."""
    try:
        given = msgspec.convert(dict(fields), _File, strict=False, dec_hook=_path)
    except msgspec.ValidationError as error:
        raise BadInput(f"paymaster settings: {error}") from None
    for table in (given.budget, given.gas, given.signer, given.offer, given.limits, given.erc20):
        name = next(n for n in given.__struct_fields__ if getattr(given, n) is table)
        if unknown := fields.get(name, {}).keys() - table.__dataclass_fields__.keys():
            raise BadInput(f"paymaster settings: {name}.{min(unknown)} is no setting")
    paymasters = _by_entry_point("paymasters", given.paymasters)
    token_paymasters = _by_entry_point("token_paymasters", given.token_paymasters)
    if not (paymasters or token_paymasters) or (paymasters and not given.engines):
        raise BadInput(
            "paymaster settings: at least one paymaster contract is needed (paymasters), and one of engines unless only tokens are taken"
        )
    for token in given.erc20.tokens:
        parse_address(token, "erc20.tokens")
    _check_ranges(given)
    return Settings(
        rpc_url=given.rpc_url,
        ledger=Path(given.ledger),
        paymasters=paymasters,
        token_paymasters=token_paymasters,
        erc20=given.erc20,
        terms=Terms(
            engines=frozenset(parse_address(engine, "engines") for engine in given.engines),
            risk_validator=parse_address(given.risk_validator, "risk_validator"),
            budget=given.budget,
            gas=given.gas,
            accounts=frozenset(parse_address(account, "accounts") for account in given.accounts),
            policies=frozenset(parse_hash(policy, "policies") for policy in given.policies),
            validity_s=given.validity_s,
        ),
        signer=given.signer,
        host=given.host,
        port=given.port,
        chain_id=given.chain_id,
        min_deposit_wei=given.min_deposit_wei,
        confirmations=given.confirmations,
        start_block=given.start_block,
        poll_s=given.poll_s,
        node_timeout_s=given.node_timeout_s,
        offer=given.offer,
        limits=given.limits,
    )


def _by_entry_point(name: str, given: Mapping[str, str]) -> tuple[tuple[Address, Address], ...]:
    """Our contracts by the entry point's address. Raises BadInput."""
    if unknown := given.keys() - ENTRY_POINTS.keys():
        raise BadInput(f"{name}.{min(unknown)}: no such entry point version; there are {', '.join(ENTRY_POINTS)}")
    return tuple(
        (ENTRY_POINTS[version].address, parse_address(address, f"{name}.{version}"))
        for version, address in given.items()
    )


def _path(kind: type, value: object) -> Path:
    """A file name for msgspec, which knows no paths."""
    if kind is not Path or not isinstance(value, str):
        raise ValueError(f"Expected a file name, got `{type(value).__name__}`")
    return Path(value)


def _check_ranges(given: _File) -> None:
    numbers = {
        "validity_s": (given.validity_s, 1),
        "port": (given.port, 0),
        "min_deposit_wei": (given.min_deposit_wei, 0),
        "confirmations": (given.confirmations, 0),
        "poll_s": (given.poll_s, 0.01),
        "node_timeout_s": (given.node_timeout_s, 0.1),
    }
    for table, part in (("budget", given.budget), ("gas", given.gas), ("limits", given.limits)):
        for name in part.__dataclass_fields__:
            numbers[f"{table}.{name}"] = (getattr(part, name), 1 if table == "limits" else 0)
    offer = given.erc20
    numbers |= {
        f"erc20.{name}": (getattr(offer, name), 0) for name in ("slack_bps", "min_window_s", "verification_gas")
    }
    numbers["erc20.post_op_gas"] = (offer.post_op_gas, MIN_POST_OP_GAS)
    for name, (value, least) in numbers.items():
        if value < least:
            raise BadInput(f"paymaster settings: {name} must be at least {least}, got {value}")
    if given.port > 65_535:
        raise BadInput(f"paymaster settings: port must be below 65536, got {given.port}")


def open_signer(source: KeySource, environment: Mapping[str, str]) -> Eoa:
    """The signing key. Raises SetupError saying where it was looked for; the key itself is in no message."""
    if source.keystore is not None:
        return _from_keystore(source.keystore, _password(source, environment))
    text = _read_fd(environment, "KEY_FD") if source.key_file is None else _read_private(source.key_file)
    if text is None:
        raise SetupError(
            "no signing key: set signer.keystore (with signer.password_file) or signer.key_file, "
            f"or name an open file descriptor in {PREFIX}KEY_FD"
        )
    try:
        return Eoa(bytes.fromhex(text.strip().removeprefix("0x")))
    except (ValueError, BadInput):
        raise SetupError("the signing key must be 64 hex digits") from None


def _from_keystore(path: Path, password: str) -> Eoa:
    from eth_account import Account

    try:
        return Eoa(bytes(Account.decrypt(json.loads(path.read_text()), password)))
    except (OSError, ValueError, KeyError, TypeError):
        raise SetupError(f"the keystore {path} cannot be opened: wrong password, or no v3 keystore") from None


def _password(source: KeySource, environment: Mapping[str, str]) -> str:
    if source.password_file is not None:
        return _read_private(source.password_file).rstrip("\r\n")
    given = _read_fd(environment, "PASSWORD_FD")
    if given is None:
        raise SetupError(f"the keystore needs signer.password_file or a file descriptor in {PREFIX}PASSWORD_FD")
    return given.rstrip("\r\n")


def _read_fd(environment: Mapping[str, str], name: str) -> str | None:
    number = environment.get(PREFIX + name)
    if number is None:
        return None
    try:
        with os.fdopen(int(number), closefd=True) as stream:
            return stream.read()
    except (OSError, ValueError):
        raise SetupError(f"{PREFIX}{name} must be the number of an open, readable file descriptor") from None


def _read_private(path: Path) -> str:
    try:
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise SetupError(f"{path} can be read by others: chmod 600 {path}")
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"{path} cannot be read: {type(error).__name__}") from None
