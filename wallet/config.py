"""One profile from four places: a flag beats the environment (`SEAWALL_*`), which beats `./seawall.toml`, which beats the user's
`config.toml` in the XDG configuration directory. A deployments file (what `seawall devnet --json` prints) fills in the rest.

Every value keeps its origin, for `seawall config show --origin`. An unknown key is an error that names the line and the nearest
known key. No secret has a place here: keys are named, the keystore holds them.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.errors import BadInput, SetupError
from contracts.types import Address, checksum, parse_address

_SERVICES = ("bundler", "paymaster")
"""Tables that belong to those services, which read and check them; they may share the file."""
PROJECT_FILE = "seawall.toml"
USER_FILE = "config.toml"

# fmt: off
ADDRESS_NAMES = (
    "entry_point_v07", "entry_point_v08", "entry_point_v09", "multicall3", "weth", "usdc", "feed_eth_usd", "feed_usdc_usd",
    "sequencer_feed", "uniswap_factory", "uniswap_pool", "uniswap_router", "uniswap_quoter",
    "uniswap_position_manager", "aave_pool", "aave_addresses_provider", "aave_oracle", "aave_data_provider",
    "aave_sentinel", "aave_atoken_weth", "perp_clearing_house", "perp_vault", "perp_exchange",
    "perp_account_balance", "perp_market_registry", "perp_order_book", "perp_insurance_fund",
    "perp_delegate_approval", "perp_config", "perp_base_token", "perp_quote_token", "perp_pool",
    "perp_price_feed",
    "lyra_option_market", "lyra_option_token", "lyra_greek_cache", "lyra_option_pricer", "lyra_liquidity_pool", "lyra_liquidity_token",
    "lyra_short_collateral", "lyra_pool_hedger", "lyra_synthetix_adapter", "lyra_gwav_oracle", "lyra_viewer",
    "lyra_keeper", "lyra_black_scholes", "lyra_rates", "lyra_quote", "lyra_base", "lyra_quote_pool",
    "gas_price_oracle", "l1_block", "risk_account_implementation", "risk_account_factory",
    "risk_validator", "session_validator", "stop_loss", "health_guard", "auto_rebalance", "delta_hedge", "policy_hook", "equity_breaker",
    "emergency_freeze", "recovery", "multisig_owner", "verifying_paymaster", "erc20_paymaster",
    "perp_adapter", "perp_hedge_adapter", "uniswap_adapter", "uniswap_route_adapter", "lyra_adapter", "lyra_delta", "aave_adapter",
    "aave_unwind_adapter", "perp_equity", "aave_equity",
)
# fmt: on
"""Contracts and venues that a profile can name, as the deployments file names them."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Names of keystore entries by role. None: the role has no key here."""

    owner: str | None
    engine: str | None
    keeper: str | None
    guardian: str | None


@dataclass(frozen=True, slots=True)
class KeeperProfile:
    """The keeper's own settings; what each means stands in `SETTINGS`."""

    guard: str
    backup_bundler_urls: tuple[str, ...]
    session_key_file: Path | None
    session_key_fd: int | None
    transaction_key: str | None
    transaction_key_file: Path | None
    watch: Path | None
    from_block: int
    db: Path | None
    host: str
    port: int
    poll_ms: int
    replace_after_blocks: int
    min_priority_fee_wei: int
    direct_fallback: bool


@dataclass(frozen=True, slots=True)
class Profile:
    """Everything a command needs to know about chain, services, contracts and keys. Paths are absolute."""

    rpc_url: str
    bundler_url: str
    paymaster_url: str | None
    gas_token: str | None
    gas_token_approve: str
    chain_id: int | None
    entry_point: str
    account: Address | None
    policy: Path | None
    deployments: Path | None
    keystore: Path
    read_only: bool
    engines: tuple[tuple[str, Path], ...]
    exports: tuple[tuple[str, Path], ...]
    prices: tuple[str, ...]
    history: tuple[Path, ...]
    keys: Keys
    addresses: Mapping[str, Address]
    keeper: KeeperProfile

    def address(self, name: str) -> Address:
        """The contract `name`. Raises BadInput saying where to set it."""
        try:
            return self.addresses[name]
        except KeyError:
            raise BadInput(
                f'the address of {name} is not configured: give `deployments = "FILE"` (what `seawall devnet --json` prints) or '
                f"addresses.{name} in {PROJECT_FILE}"
            ) from None

    def named(self, text: str) -> Address:
        """An address, or the contract of that name. Raises BadInput saying where to set it."""
        return parse_address(text) if text.startswith("0x") else self.address(text)


@dataclass(frozen=True, slots=True)
class Setting:
    """One key: how to read it, what it is when nobody says, and a line for people."""

    parse: Callable[[object, Path], Any]
    default: Any
    help: str


@dataclass(frozen=True, slots=True)
class Config:
    """A resolved profile and, by dotted key, where each value came from."""

    profile: Profile
    values: Mapping[str, Any]
    origins: Mapping[str, str]


# -- readers of one value, from TOML (typed) or text (environment, flag); a relative path starts at `base` ---------------------


def _text(value: object, _: Path) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("must be a non-empty text")
    return value


def _url(value: object, base: Path) -> str:
    text = _text(value, base)
    if not re.match(r"https?://[^\s/]+", text):
        raise ValueError("must be an http:// or https:// address")
    return text


def _urls(value: object, base: Path) -> tuple[str, ...]:
    items = [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
    if not isinstance(items, list | tuple):
        raise ValueError("must be a list of addresses")
    return tuple(_url(item, base) for item in items)


def _path(value: object, base: Path) -> Path:
    return (
        (base / Path(_text(value, base)).expanduser()).absolute() if not isinstance(value, Path) else value.absolute()
    )


def _exports(value: object, base: Path) -> tuple[tuple[str, Path], ...]:
    """Venue and file of each exported book: `VENUE=FILE`, several of them in a list or separated by commas."""
    items = [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
    if not isinstance(items, list | tuple):
        raise ValueError("must be a list of VENUE=FILE")
    found = []
    for item in items:
        venue, sign, path = _text(item, base).partition("=")
        if not venue or not sign or not path:
            raise ValueError(f"must be VENUE=FILE, got {item!r:.80}")
        found.append((venue, _path(path, base)))
    return tuple(found)


def _engines(value: object, base: Path) -> tuple[tuple[str, Path], ...]:
    """URL and token file of each engine beside one's own: `URL#TOKEN_FILE`, several of them in a list or separated by commas."""
    items = [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
    if not isinstance(items, list | tuple):
        raise ValueError("must be a list of URL#TOKEN_FILE")
    found = []
    for item in items:
        url, sign, path = _text(item, base).partition("#")
        if not sign or not path:
            raise ValueError(f"must be URL#TOKEN_FILE, got {item!r:.80}")
        found.append((_url(url, base), _path(path, base)))
    return tuple(found)


def _prices(value: object, base: Path) -> tuple[str, ...]:
    """Sources of prices: files (relative ones start at `base`) and `ASSET=URL#PATH`."""
    items = [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
    if not isinstance(items, list | tuple):
        raise ValueError("must be a list of files and ASSET=URL#PATH")
    texts = [_text(item, base) for item in items]
    return tuple(text if "=http" in text else str(_path(text, base)) for text in texts)


def _paths(value: object, base: Path) -> tuple[Path, ...]:
    """Files, in a list or separated by commas; relative ones start at `base`."""
    items = [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
    if not isinstance(items, list | tuple):
        raise ValueError("must be a list of files")
    return tuple(_path(item, base) for item in items)


def _flag(value: object, _: Path) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "1", "yes", "false", "0", "no"):
        return value.lower() in ("true", "1", "yes")
    raise ValueError("must be true or false")


def _integer(low: int, high: int) -> Callable[[object, Path], int]:
    def read(value: object, _: Path) -> int:
        if isinstance(value, str) and re.fullmatch(r"[0-9]+", value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"must be an integer from {low} to {high}")
        return value

    return read


def _choice(*allowed: str) -> Callable[[object, Path], str]:
    def read(value: object, _: Path) -> str:
        if value not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}")
        return str(value)

    return read


def _address(value: object, _: Path) -> Address:
    return parse_address(value)


def _key_name(value: object, base: Path) -> str:
    text = _text(value, base)
    if re.fullmatch(r"(0x)?[0-9a-fA-F]{64}", text):
        raise ValueError(
            "must be the name of a keystore entry; this looks like a private key, which is now in your shell's history or a file"
        )
    return text


def user_directory() -> Path:
    """Where the user's own configuration lives (XDG_CONFIG_HOME/seawall on Linux)."""
    from platformdirs import user_config_path

    return user_config_path("seawall")


def data_directory() -> Path:
    """Where keys and databases live (XDG_DATA_HOME/seawall on Linux)."""
    from platformdirs import user_data_path

    return user_data_path("seawall")


SETTINGS: dict[str, Setting] = {
    "rpc_url": Setting(_url, "http://127.0.0.1:8545", "JSON-RPC address of the Ethereum node"),
    "bundler_url": Setting(_url, "http://127.0.0.1:4337", "JSON-RPC address of the bundler"),
    "paymaster_url": Setting(_url, None, "JSON-RPC address of the ERC-7677 paymaster service"),
    "gas_token": Setting(
        _text, None, "pay gas in this token through addresses.erc20_paymaster: `usdc`, or the token's address"
    ),
    "gas_token_approve": Setting(_text, "20", "how much of it the paymaster may take before it is approved anew"),
    "chain_id": Setting(_integer(1, 2**64 - 1), None, "refuse any other chain"),
    "entry_point": Setting(_choice("v0.8", "v0.7", "v0.9"), "v0.8", "entry point version"),
    "account": Setting(_address, None, "the risk account to work on"),
    "policy": Setting(_path, None, "the policy file"),
    "deployments": Setting(_path, None, "JSON file with addresses, as `seawall devnet --json` prints it"),
    "keystore": Setting(_path, None, "directory of key files"),
    "read_only": Setting(_flag, True, "refuse every command that would sign for the owner or a guardian"),
    "engines": Setting(
        _engines,
        (),
        "engines beside this one that must agree (attestation.threshold): URL#TOKEN_FILE of each `seawall policy serve`",
    ),
    "exports": Setting(_exports, (), "books of venues off the chain, VENUE=FILE each (deribit, dydx, hyperliquid)"),
    "prices": Setting(
        _prices, (), "prices beside the feeds': a recorded FILE, or ASSET=URL#PATH.TO.PRICE of a live one"
    ),
    "history": Setting(
        _paths, (), "recorded FILEs of past prices, for limits on VaR and ES; default: the feeds' rounds"
    ),
    **{
        f"keys.{role}": Setting(_key_name, None, f"name of the {role}'s key")
        for role in ("owner", "engine", "keeper", "guardian")
    },
    **{f"addresses.{name}": Setting(_address, None, "contract address") for name in ADDRESS_NAMES},
    "keeper.guard": Setting(
        _choice("stop_loss", "health_guard", "auto_rebalance", "delta_hedge", "equity_breaker"),
        "stop_loss",
        "which guards this keeper fires; one process a kind",
    ),
    "keeper.backup_bundler_urls": Setting(_urls, (), "bundlers to try when bundler_url fails"),
    "keeper.session_key_file": Setting(_path, None, "0600 file with the session key, instead of keys.keeper"),
    "keeper.session_key_fd": Setting(
        _integer(0, 2**16), None, "open descriptor that gives the session key, instead of keys.keeper"
    ),
    "keeper.transaction_key": Setting(
        _key_name, None, "name of the key that pays for plain transactions; default: the session key"
    ),
    "keeper.transaction_key_file": Setting(_path, None, "the same as a 0600 file"),
    "keeper.watch": Setting(_path, None, "TOML or JSON file of triggers to watch; default: discover from events"),
    "keeper.from_block": Setting(_integer(0, 2**63), 0, "first block to search for armed stops and sessions"),
    "keeper.db": Setting(_path, None, "the keeper's database"),
    "keeper.host": Setting(_text, "127.0.0.1", "where the status service listens"),
    "keeper.port": Setting(_integer(0, 65535), 0, "its port; 0 takes a free one"),
    "keeper.poll_ms": Setting(_integer(10, 60_000), 75, "how often to ask for a new head (ms)"),
    "keeper.replace_after_blocks": Setting(
        _integer(1, 10_000), 8, "blocks without inclusion before fees are raised by 12 %"
    ),
    "keeper.min_priority_fee_wei": Setting(
        _integer(0, 10**15), 1_000_000, "lowest priority fee to offer (wei per gas)"
    ),
    "keeper.direct_fallback": Setting(
        _flag, True, "execute by plain transaction after the public delay if no bundler does"
    ),
}


def environment_name(key: str) -> str:
    """`keeper.db` -> `SEAWALL_KEEPER_DB`."""
    return "SEAWALL_" + key.upper().replace(".", "_")


def resolve(
    flags: Mapping[str, object] | None = None,
    *,
    environment: Mapping[str, str],
    directory: Path | None = None,
    project_file: Path | None = None,
    user_file: Path | None = None,
) -> Config:
    """The profile for one command. `flags` by dotted key; None values count as not given.

    `project_file` names the project's file (it must exist); by default ./seawall.toml if there is one. Raises BadInput naming
    origin and line for an unknown key or a malformed value, SetupError for an unreadable file.
    """
    directory = directory or Path.cwd()
    user_file = user_file or user_directory() / USER_FILE
    project = project_file or directory / PROJECT_FILE
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}

    def take(key: str, raw: object, origin: str, base: Path) -> None:
        try:
            value = SETTINGS[key].parse(raw, base)
        except (ValueError, BadInput) as error:
            raise BadInput(f"{origin}: {key} {str(error).removeprefix('address ')}") from None
        values[key], origins[key] = value, origin

    for key, setting in SETTINGS.items():
        values[key], origins[key] = setting.default, "default"
    layers: list[tuple[str, object, str, Path]] = []
    if user_file.is_file():
        layers += _read_toml(user_file)
    if project_file is not None or project.is_file():
        layers += _read_toml(project)
    for key in SETTINGS:
        if (text := environment.get(environment_name(key))) is not None:
            layers.append((key, text, f"environment {environment_name(key)}", directory))
    for key, raw in (flags or {}).items():
        if key not in SETTINGS:
            raise BadInput(f"unknown setting {key!r}{_did_you_mean(key)}")
        if raw is not None:
            layers.append((key, raw, f"flag --{key.split('.')[-1].replace('_', '-')}", directory))
    for key, raw, origin, base in layers:
        take(key, raw, origin, base)
    if values["deployments"] is not None:
        for key, raw in _read_deployments(values["deployments"]).items():
            if origins[key] == "default":
                take(key, raw, str(values["deployments"]), directory)
    if values["keystore"] is None:
        values["keystore"] = data_directory() / "keystore"
    return Config(_profile(values), values, origins)


def _profile(values: Mapping[str, Any]) -> Profile:
    def group(prefix: str) -> dict[str, Any]:
        return {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}

    plain = {key: value for key, value in values.items() if "." not in key}
    addresses = {name: address for name, address in group("addresses.").items() if address is not None}
    return Profile(**plain, keys=Keys(**group("keys.")), addresses=addresses, keeper=KeeperProfile(**group("keeper.")))


def _read_toml(path: Path) -> list[tuple[str, object, str, Path]]:
    try:
        text = path.read_text(encoding="utf-8")
        tree = tomllib.loads(text)
    except OSError as error:
        raise SetupError(f"the configuration file {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise BadInput(f"{path} is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{path}: not valid TOML: {error}") from None
    found: list[tuple[str, object, str, Path]] = []
    for key, value in _leaves({k: v for k, v in tree.items() if k not in _SERVICES}, ""):
        origin = f"{path}:{_line_of(text, key)}"
        if key not in SETTINGS:
            raise BadInput(f"{origin}: unknown key {key!r}{_did_you_mean(key)}")
        found.append((key, value, origin, path.parent))
    return found


def _leaves(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _line_of(text: str, key: str) -> int:
    """The line (from 1) on which `key` is set, or where its table begins; tomllib keeps no positions."""
    *tables, name = key.split(".")
    table, best = "", 1
    wanted = ".".join(tables)
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[+\s*([^\]]+?)\s*\]+", line):
            table = header[1].replace('"', "").replace(" ", "")
            best = number if table == wanted else best
        elif assigned := re.match(r"\s*([A-Za-z0-9_.\"'-]+)\s*=", line):
            dotted = assigned[1].replace('"', "").replace("'", "")
            full = f"{table}.{dotted}" if table else dotted
            if full in (key, f"{wanted}.{name}" if wanted else name) or (wanted and full == wanted):
                return number
    return best


def _did_you_mean(key: str) -> str:
    close = difflib.get_close_matches(key, SETTINGS, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else "; `seawall config show` lists all keys"


def _read_deployments(path: Path) -> dict[str, object]:
    """Known addresses, and chain and node, from a deployments file. Unknown names are left alone."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise SetupError(f"the deployments file {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise BadInput(f"the deployments file {path} is not JSON: {error}") from None
    if not isinstance(content, dict) or not isinstance(content.get("addresses"), dict):
        raise BadInput(f'the deployments file {path} must be a JSON object with an "addresses" object')
    found: dict[str, object] = {
        f"addresses.{name}": value for name, value in content["addresses"].items() if name in ADDRESS_NAMES
    }
    found |= {key: content[key] for key in ("rpc_url", "chain_id") if content.get(key) is not None}
    return found


def shown(value: Any) -> Any:
    """A value as JSON shows it: checksummed addresses, paths and lists as text."""
    if isinstance(value, bytes):
        return checksum(value)
    if isinstance(value, Path):
        return str(value)
    return [shown(item) for item in value] if isinstance(value, tuple) else value


def starter() -> str:
    """The text of a new project file: every top-level key with its meaning, commented out; a new profile starts read-only."""
    lines = ["# Seawall, this project's settings. A flag beats the environment (SEAWALL_*), which beats this file.", ""]
    tables: dict[str, list[str]] = {}
    for key, setting in SETTINGS.items():
        if key.startswith("addresses."):
            continue
        table, _, name = key.rpartition(".")
        default = shown(setting.default)
        value = '"..."' if default is None else json.dumps(default)
        entry = f"{'' if key == 'read_only' else '# '}{name} = {value}"
        tables.setdefault(table, []).append(f"{entry:<48}  # {setting.help}")
    for table, entries in tables.items():
        lines += ([f"[{table}]"] if table else []) + entries + [""]
    return "\n".join(lines)
