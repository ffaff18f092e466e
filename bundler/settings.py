"""Everything an operator can set, in one frozen value, and its reading from TOML and environment."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bundler.endpoints import Endpoint, parse_endpoints
from bundler.fees.choose import AUTO, check_name
from bundler.keys import KeyDescriptor, KeyFile, KeySource, Keystore, KeyVariable, read_secret
from bundler.limits import ApiKey, parse_api_keys
from contracts.entrypoint import V07, V08, EntryPoint, by_address
from contracts.eoa import Eoa
from contracts.errors import BadInput
from contracts.types import Address, Wei, parse_address

_LEAST_TOKEN = 16
MAX_TRANSACTION_GAS = 16_777_216
"""Source: EIP-7825."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of one bundler process. Durations in seconds, gas in gas, fees in wei per gas, sizes in bytes."""

    rpc_url: str
    """JSON-RPC of an Ethereum node that answers debug_traceCall."""
    executor_key: KeySource | None
    """None only without `build_bundles`."""
    database: Path
    """The SQLite file, for one process."""
    entry_points: tuple[EntryPoint, ...] = (V08, V07)
    store: str = ""
    """`postgresql://...`: a PostgreSQL database in place of the file, which several processes may share. A password does not belong on a
    command line: ~/.pgpass, PGPASSWORD, or the settings file."""
    build_bundles: bool = True
    """Without it this process only answers requests, and needs no key: others on the same PostgreSQL database build."""
    lease_s: float = 10.0
    """How long an executor's key stays with a process on PostgreSQL that is not heard of; then another that has the key takes over."""
    max_leased_keys: int = 0
    """The most keys that this process leases of those it has, so that others get some; 0: any number."""
    lane_key_files: tuple[Path, ...] = ()
    """0600 files of further executors' keys: each carries a bundle of its own beside the others', of operations that do not meet."""
    beneficiary: Address | None = None
    """Who gets the fees of the operations; the executor itself when None."""
    host: str = "127.0.0.1"
    port: int = 4337
    cors_origin: str | None = None
    """`Access-Control-Allow-Origin`; None sends no CORS header, so that no web page can use this bundler."""

    # intake
    max_body_bytes: int = 1_000_000
    max_batch: int = 50
    request_timeout_s: float = 10.0
    max_op_bytes: int = 65_536
    max_verification_gas: int = 5_000_000
    min_priority_fee_wei: Wei = 0
    min_validity_s: int = 30
    """An operation must stay valid this much longer than the latest block. Source: ERC-7562 VALID_UNTIL_FUTURE_SECONDS."""
    max_ops_per_sender: int = 4
    """Of an unstaked sender. Source: ERC-7562 [UREP-010] SAME_SENDER_MEMPOOL_COUNT."""
    max_pool_ops: int = 4_096
    max_pool_bytes: int = 256_000_000
    """Memory of the pool's operations. Into a full pool comes only who pays 10 % more than the lowest, which leaves."""
    simulation_gas: int = 45_000_000
    """Gas of one estimate's eth_call; below the usual cap of nodes, 50 million."""

    # rules and reputation
    safe: bool = True
    """Judge every operation by the rules of ERC-7562. The node must take JavaScript tracers then. Without it a stranger's operation can
    cost a bundle its gas: only for accounts and paymasters you trust."""
    cheap_pass: bool = True
    """Safe mode first tries to prove conformance by a cheap run of trapped code, and traces in full only what that leaves open. It never
    accepts what the full trace would refuse."""
    min_stake_wei: Wei = 10**17
    """What counts as staked. Source: ERC-7562 [SREP-010], MIN_STAKE_VALUE: adjust it to the chain."""
    min_unstake_delay_s: int = 86_400
    """Source: ERC-7562 MIN_UNSTAKE_DELAY."""
    allowed_entities: tuple[Address, ...] = ()
    """Never throttled or banned."""
    denied_entities: tuple[Address, ...] = ()
    """Always banned."""
    debug: bool = False
    """Serve the `debug_bundler_*` methods: for tests, never on a public address."""

    # building and submission
    bundle_interval_s: float = 0.0
    """Least time between two bundles; 0 builds as soon as there is an operation and no bundle is under way."""
    lane_min_ops: int = 8
    """A further executor's bundle is built only of at least so many operations while another's is under way; of any number once one
    under way has missed a block."""
    lane_min_balance_wei: Wei = 1
    """An executor that holds less rests while another does not."""
    low_balance_wei: Wei = 10**16
    """An executor that holds less is an alarm."""
    treasury_key_file: Path | None = None
    """0600 file of the key that tops executors up; it keeps `<file>.ledger` beside it."""
    refill_below_wei: Wei = 0
    """Who holds less is topped up"""
    refill_to_wei: Wei = 0
    """to this,"""
    refill_daily_cap_wei: Wei = 0
    """with at most this in any 24 hours."""
    max_ops_per_bundle: int = 64
    max_bundle_gas: int = MAX_TRANSACTION_GAS
    require_profit: bool = True
    """Send only bundles whose operations pay at least what the transaction costs at the moment of building; what does not pay waits."""
    fee_model: str = AUTO
    """What the chain charges for data: `auto` (by chain id), `l1`, `op-stack`, `arbitrum`, `linea`, `scroll` or `zksync`."""
    data_fee_margin_percent: int = 10
    """Estimates ask for this much more than data cost now: prices move between the estimate and the block."""
    data_fee_tolerance_percent: int = 0
    """An operation is accepted also if it pays this much less for its data than they cost now; it waits until it pays."""
    allow_data_loss: bool = False
    """Send operations also in bundles in which they do not pay for their data."""
    submission: tuple[Endpoint, ...] = ()
    """Where bundles are handed in, in order of preference; the node when empty."""
    private_only: bool = False
    """Hand in at private endpoints only, whatever happens: operations wait rather than be seen."""
    blocks_before_fallback: int = 3
    """A transaction that an endpoint brought into none of so many blocks goes to the next one, too."""
    censorship_blocks: int = 2
    """So many blocks with room and a cheaper transaction, but not ours, count against an endpoint."""
    endpoint_rest_s: float = 60.0
    """How long an endpoint that failed three times in a row, or seems to censor, is the last choice."""
    endpoint_timeout_s: float = 3.0
    inflator: Address | None = None
    """Inflator contract through which bundles go in a compact form where that costs less."""
    blocks_before_resubmit: int = 3
    resubmit_bump_percent: int = 13
    """Raise of both fees at a resubmission; nodes want at least 10."""
    max_bundle_fee_wei: Wei = 500 * 10**9
    """No bundle's max fee per gas is ever raised above this."""
    finality_depth: int = 12
    """Blocks after which an inclusion is not checked for reorganisations any more."""
    event_search_blocks: int = 2_000
    """How far back logs are searched for an operation that is not ours."""
    poll_interval_s: float = 0.025
    """How often the node is asked while a bundle or an operation is pending."""
    idle_poll_interval_s: float = 0.5
    node_wait_s: float = 30.0
    """How long to wait for the node at start."""
    drain_timeout_s: float = 10.0
    log_format: str = "text"
    """`text` or `json`."""
    traces: str = "none"
    """`none`, or `otlp`: OpenTelemetry spans of every operation's life (bundler.tracing)."""

    # operation
    max_json_depth: int = 64
    """How deep a request's lists and objects may nest."""
    rate_limit_per_s: float = 0.0
    """Requests a second that one client address may make on average; 0: any number. Each entry of a batch counts."""
    rate_limit_burst: int = 100
    """How many at once."""
    api_keys_file: Path | None = None
    """0600 TOML file of clients with a key and a rate of their own (bundler.limits.ApiKey); read again at `reload`."""
    require_api_key: bool = False
    """Answer only clients with such a key."""
    max_websockets: int = 100
    """Connections that may listen to what happens, at `/ws`; 0: none."""
    trust_forwarded_for: bool = False
    """Take the client's address from X-Forwarded-For (its last entry): only behind a proxy that sets it."""
    max_head_age_s: float = 300.0
    """Not ready while the latest block is older; 0: any age. Never looked at on development chains (ids 1337 and 31337)."""
    min_executor_balance_wei: Wei = 1
    """Not ready while the executor holds less."""
    admin_host: str = "127.0.0.1"
    admin_port: int | None = None
    """Serves metrics and the operator's commands; None: not at all, 0: any free port."""
    admin_token_file: Path | None = None
    """0600 file with the token of the operator's commands; without it there are only metrics and status."""

    def __post_init__(self) -> None:
        if not 100_000 <= self.max_bundle_gas <= MAX_TRANSACTION_GAS:
            raise BadInput(
                f"max_bundle_gas must lie in 100000..{MAX_TRANSACTION_GAS} (EIP-7825), got {self.max_bundle_gas}"
            )
        if not self.entry_points:
            raise BadInput("at least one entry point is needed")
        if self.resubmit_bump_percent < 10:
            raise BadInput(f"resubmit_bump_percent must be at least 10, got {self.resubmit_bump_percent}")
        if self.log_format not in ("text", "json"):
            raise BadInput(f"log_format must be text or json, got {self.log_format!r}")
        if self.store and not self.store.startswith(("postgresql://", "postgres://")):
            raise BadInput(
                "store must be postgresql://[user@]host[:port]/database, or empty for the SQLite file `database`"
            )
        if not self.build_bundles and not self.store:
            raise BadInput(
                "without build_bundles nobody would send what comes in: it is for processes that share a PostgreSQL `store`"
            )
        if self.executor_key is None and self.build_bundles:
            raise BadInput(_NO_KEY)
        if self.lease_s < 1:
            raise BadInput(f"lease_s must be at least 1, got {self.lease_s}")
        if self.max_leased_keys < 0:
            raise BadInput(f"max_leased_keys must not be negative, got {self.max_leased_keys}")
        if self.traces not in ("none", "otlp"):
            raise BadInput(f"traces must be none or otlp, got {self.traces!r}")
        check_name(self.fee_model)
        for name in ("data_fee_margin_percent", "data_fee_tolerance_percent"):
            if not 0 <= getattr(self, name) <= 100:
                raise BadInput(f"{name} must lie in 0..100, got {getattr(self, name)}")
        positive = (
            "lane_min_ops", "max_ops_per_bundle", "max_ops_per_sender", "max_pool_ops", "max_pool_bytes",
            "max_batch", "blocks_before_resubmit", "blocks_before_fallback", "censorship_blocks",
            "rate_limit_burst", "max_json_depth",
        )  # fmt: skip
        for name in positive:
            if getattr(self, name) < 1:
                raise BadInput(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("poll_interval_s", "idle_poll_interval_s", "request_timeout_s", "endpoint_timeout_s"):
            if getattr(self, name) <= 0:
                raise BadInput(f"{name} must be above 0, got {getattr(self, name)}")
        if self.private_only and not (self.submission and all(one.private for one in self.submission)):
            raise BadInput(
                "private_only needs private endpoints in `submission`, and no public one: an operation would be seen by everybody"
            )
        for name in (
            "rate_limit_per_s", "max_head_age_s", "min_executor_balance_wei", "lane_min_balance_wei", "endpoint_rest_s",
            "low_balance_wei",
        ):  # fmt: skip
            if getattr(self, name) < 0:
                raise BadInput(f"{name} must not be negative, got {getattr(self, name)}")
        if self.treasury_key_file is not None and not (
            0 < self.refill_below_wei < self.refill_to_wei and self.refill_daily_cap_wei > 0
        ):
            raise BadInput(
                "a treasury needs bounds: 0 < refill_below_wei < refill_to_wei, and a refill_daily_cap_wei above 0"
            )
        if self.require_api_key and self.api_keys_file is None:
            raise BadInput("require_api_key needs api_keys_file: name the file with the clients' keys")

    def admin_token(self) -> str | None:
        """The token of the operator's commands. Raises BadInput when the file cannot be read, is readable by others, or too short."""
        path = self.admin_token_file
        if path is None:
            return None
        token = read_secret(path, "the file of the operator's token").strip()
        if len(token) < _LEAST_TOKEN:
            raise BadInput(f"the operator's token in {path} has {len(token)} characters: take at least {_LEAST_TOKEN}")
        return token

    def api_keys(self) -> tuple[ApiKey, ...]:
        """The clients with a key of their own. Raises BadInput or SetupError when the file is readable by others, or wrong."""
        path = self.api_keys_file
        return () if path is None else parse_api_keys(read_secret(path, "the file of the clients' keys"), str(path))

    def executors(self) -> tuple[Eoa, ...]:
        """All executors' keys, the first first; none without `build_bundles`. Raises SetupError, BadInput (unreadable, one key twice)."""
        if self.executor_key is None or not self.build_bundles:
            return ()
        keys = (self.executor_key.load(), *(KeyFile(path).load() for path in self.lane_key_files))
        if len({key.address for key in keys}) < len(keys):
            raise BadInput("two of the executors' keys are the same: each lane needs a key of its own")
        return keys

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Settings:
        """From names and plain values, as TOML has them.

        `entry_points` is a list of addresses; the key is one of `key_file`, `keystore` with `password_file`, `key_env`,
        `key_fd`. Raises BadInput naming what is unknown, missing or of a wrong type.
        """
        given = dict(values)
        given["executor_key"] = _key_source(given)
        if given.get("store"):
            given.setdefault("database", "")
        if "entry_points" in given:
            given["entry_points"] = tuple(
                by_address(parse_address(text, "entry_points")) for text in given["entry_points"]
            )
        for name in ("beneficiary", "inflator"):
            if given.get(name) is not None:
                given[name] = parse_address(given[name], name)
        for name in ("allowed_entities", "denied_entities"):
            if name in given:
                given[name] = tuple(parse_address(text, name) for text in given[name])
        for name in ("database", "admin_token_file", "api_keys_file", "treasury_key_file"):
            if given.get(name) is not None:
                given[name] = Path(given[name]).expanduser()
        if "submission" in given:
            given["submission"] = parse_endpoints(given["submission"])
        if "lane_key_files" in given:
            paths = given["lane_key_files"]
            paths = [part.strip() for part in paths.split(",") if part.strip()] if isinstance(paths, str) else paths
            given["lane_key_files"] = tuple(Path(path).expanduser() for path in paths)
        known = {field.name: str(field.type) for field in fields(cls)}
        for name, value in given.items():
            if name not in known:
                raise BadInput(f"unknown setting {name!r}; known: {', '.join(sorted(known))}")
            given[name] = _plain(name, value, known[name])
        for name in ("rpc_url", "database"):
            if name not in given:
                raise BadInput(f"the setting {name!r} is missing")
        return cls(**given)


_NO_KEY = "name exactly one source of the executor's key: key_file, keystore, key_env or key_fd"


def _plain(name: str, value: Any, kind: str) -> Any:
    """`value` as the plain type `kind`; text (from the environment) is converted. Raises BadInput."""
    kind = kind.removesuffix(" | None") if value is not None else kind
    if kind in ("int", "Wei", "float", "bool", "str"):
        wanted: type = {"float": float, "bool": bool, "str": str}.get(kind, int)
        if wanted is bool and isinstance(value, str):
            value = {"true": True, "1": True, "false": False, "0": False}.get(value.lower(), value)
        elif wanted is not bool and wanted is not str and isinstance(value, str):
            try:
                value = wanted(value)
            except ValueError:
                raise BadInput(f"{name} must be a number, got {value!r}") from None
        if wanted is float and type(value) is int:
            value = float(value)
        if type(value) is not wanted:
            raise BadInput(f"{name} must be of type {wanted.__name__}, got {value!r}")
    return value


def _key_source(given: dict[str, Any]) -> KeySource | None:
    """Take the key's fields out of `given`; None if there are none. Raises BadInput if there are several sources."""
    sources: list[KeySource] = []
    if (path := given.pop("key_file", None)) is not None:
        sources.append(KeyFile(Path(path).expanduser()))
    keystore, password = given.pop("keystore", None), given.pop("password_file", None)
    if (keystore is None) != (password is None):
        raise BadInput("keystore and password_file go together")
    if keystore is not None:
        sources.append(Keystore(Path(keystore).expanduser(), Path(password).expanduser()))
    if (name := given.pop("key_env", None)) is not None:
        sources.append(KeyVariable(name))
    if (fd := given.pop("key_fd", None)) is not None:
        sources.append(KeyDescriptor(int(fd)))
    if len(sources) > 1:
        raise BadInput(_NO_KEY)
    return sources[0] if sources else None


class LiveSettings:
    """Settings that can be replaced while the parts of the bundler hold them: reads as `now`."""

    def __init__(self, now: Settings) -> None:
        self.now = now

    def __getattr__(self, name: str) -> Any:
        return getattr(self.now, name)

    def change_to(self, new: Settings) -> list[str]:
        """Take `new` from now on; returns the names that changed. Raises BadInput when one of them needs a start, and changes nothing."""
        changed = [f.name for f in fields(Settings) if getattr(self.now, f.name) != getattr(new, f.name)]
        cold = [name for name in changed if name not in HOT]
        if cold:
            raise BadInput(
                f"{', '.join(cold)} cannot change while the bundler runs: start it again; nothing was changed"
            )
        self.now = new
        return changed


HOT = frozenset(
    (
        "max_batch", "request_timeout_s", "max_op_bytes", "max_verification_gas", "min_priority_fee_wei", "min_validity_s",
        "max_ops_per_sender", "max_pool_ops", "max_pool_bytes", "simulation_gas", "min_stake_wei", "min_unstake_delay_s", "allowed_entities",
        "denied_entities", "bundle_interval_s", "lane_min_ops", "lane_min_balance_wei", "low_balance_wei",
        "refill_below_wei", "refill_to_wei", "refill_daily_cap_wei",
        "max_ops_per_bundle", "max_bundle_gas", "require_profit",
        "data_fee_margin_percent", "data_fee_tolerance_percent", "allow_data_loss", "blocks_before_resubmit",
        "blocks_before_fallback", "censorship_blocks", "endpoint_rest_s",
        "resubmit_bump_percent", "max_bundle_fee_wei", "event_search_blocks", "poll_interval_s", "idle_poll_interval_s",
        "drain_timeout_s", "max_json_depth", "rate_limit_per_s", "rate_limit_burst", "trust_forwarded_for", "max_head_age_s",
        "min_executor_balance_wei", "api_keys_file", "require_api_key",
    )
)  # fmt: skip
"""What SIGHUP and `reload` change while the bundler runs."""


def refuse_password(store: str) -> None:
    """A command line is read by everybody on the machine. Raises BadInput if this one holds the database's password."""
    if urlsplit(store).password is not None or "password=" in urlsplit(store).query:
        raise BadInput(
            "a password does not belong on a command line: put it into ~/.pgpass or PGPASSWORD, or `store` into the settings file "
            "or SEAWALL_BUNDLER_STORE"
        )


def read_toml(path: Path) -> dict[str, Any]:
    """The `[bundler]` table of a TOML file, or its top level. Raises BadInput."""
    try:
        document = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BadInput(f"the configuration {path} cannot be read: {error}") from None
    table: dict[str, Any] = document.get("bundler", document)
    return table


def read_environment(environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """`SEAWALL_BUNDLER_RPC_URL=...` and so on; lists are separated by commas. SEAWALL_BUNDLER_URL is for our clients."""
    prefix = "SEAWALL_BUNDLER_"
    found: dict[str, Any] = {k[len(prefix) :].lower(): v for k, v in environment.items() if k.startswith(prefix)}
    found.pop("url", None)
    for name in ("entry_points", "allowed_entities", "denied_entities"):
        if name in found:
            found[name] = [part.strip() for part in found[name].split(",") if part.strip()]
    return found
