"""A profile, connected: the account it works on, the names its policy uses, and a Signer over its bundler, paymaster and keys."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from contracts import bindings as b
from contracts.devnet.chain import CHAIN_ID as DEVNET_CHAIN_ID
from contracts.entrypoint import ENTRY_POINTS, EntryPoint
from contracts.eoa import Eoa
from contracts.errors import BadInput, RpcError
from contracts.rpc import RpcClient
from contracts.types import Address, Hash32, checksum
from contracts.units import to_units
from policies.names import ROLES, book_of
from policies.policy import Policy
from policies.venues.feeds import DECIMALS
from wallet.account import AccountClient
from wallet.audit import AuditLog
from wallet.config import Profile, data_directory
from wallet.engine import Engine
from wallet.exports import export_files
from wallet.facts import FactsReader, adapters_of
from wallet.gas_token import GasToken
from wallet.keystore import Keystore, PassphraseSource, read_secret_file
from wallet.market import sources_of
from wallet.past import Past, RoundCache, history_file
from wallet.policy_files import load_policy
from wallet.registry import Registry
from wallet.services import BundlerClient, EngineClient, PaymasterClient
from wallet.sign import Signer
from wallet.trading import PerpMarket

READ_ONLY = "this profile is read-only; set `read_only = false` in seawall.toml, or SEAWALL_READ_ONLY=false"


def registry() -> Registry:
    """The accounts that this user's wallet knows."""
    return Registry(data_directory() / "accounts")


def roles_of(profile: Profile) -> dict[str, Address]:
    """Addresses of the policy's roles, without opening a key: the profile's `[keys]`, else a keystore entry of the role's name.

    A role of two words is found under `guardian_2` and `guardian-2`. Raises BadInput for a key that the profile names and the keystore lacks.
    """
    store = Keystore(profile.keystore)
    named = {"owner": profile.keys.owner, "engine": profile.keys.engine}
    named |= {"keeper": profile.keys.keeper, "guardian": profile.keys.guardian}
    stored = {info.name.replace("-", "_"): info.address for info in store.entries()}
    found = {role: stored[role] for role in ROLES if role in stored}
    return found | {role: store.info(name).address for role, name in named.items() if name is not None}


def open_keys(profile: Profile, roles: Sequence[str], source: PassphraseSource) -> dict[str, Eoa]:
    """The profile's keys by role. A file or descriptor gives one passphrase for all of them; a prompt asks for each key.

    Raises BadInput in a read-only profile, for a role without key, and as the keystore does.
    """
    if profile.read_only:
        raise BadInput(READ_ONLY)
    names: dict[str, str | None] = {role: getattr(profile.keys, role) for role in roles}
    for role, name in names.items():
        if name is None:
            raise BadInput(f"no {role} key is named: set keys.{role} in seawall.toml, or SEAWALL_KEYS_{role.upper()}")
    store, asked = Keystore(profile.keystore), source.file is None and source.fd is None
    shared = None if asked else source.read("the keys")
    opened: dict[str, Eoa] = {}
    for name in dict.fromkeys(name for name in names.values() if name is not None):
        opened[name] = store.open(name, source.read(f"key {name!r}") if shared is None else shared)
    return {role: opened[name] for role, name in names.items() if name is not None}


def policy_of(profile: Profile) -> Policy | None:
    """The profile's policy file, read. Raises InvalidPolicy, BadInput."""
    return None if profile.policy is None else load_policy(profile.policy)


def market_of(profile: Profile) -> PerpMarket:
    """The perp market of the profile's deployment. Raises BadInput for an address that is not configured."""
    names = ("perp_clearing_house", "perp_vault", "perp_base_token", "usdc")
    return PerpMarket(*(profile.address(name) for name in names))


async def gas_token_of(profile: Profile, rpc: RpcClient) -> GasToken | None:
    """The token that the profile pays gas in. Raises BadInput for a name without address, or an amount with too many decimals."""
    if profile.gas_token is None:
        return None
    token = profile.named(profile.gas_token)
    (decimals,) = DECIMALS.decode(await rpc.eth_call(token, DECIMALS.encode()))
    approve = to_units(profile.gas_token_approve, decimals, "gas_token_approve")
    if approve <= 0:
        raise BadInput(f"gas_token_approve must be more than nothing, got {profile.gas_token_approve}")
    return GasToken(profile.address("erc20_paymaster"), token, approve)


@dataclass(frozen=True, slots=True)
class Desk:
    """One account of one profile on its chain. `policy` is None where the profile names no file."""

    profile: Profile
    rpc: RpcClient
    account: AccountClient
    policy: Policy | None
    book: Mapping[str, Address]
    reader: FactsReader
    bundler: BundlerClient
    paymaster: PaymasterClient | None

    def signer(self, owner: Eoa | None = None, engine: Eoa | None = None) -> Signer:
        """The account's way of sending operations; without keys it can only judge.

        Raises BadInput when the account needs attestations and the profile names no policy.
        """
        account = self.account
        if account.validator is None:
            return Signer(account, owner, self.bundler, paymaster=self.paymaster, clock=self._clock)
        if self.policy is None:
            raise BadInput(
                'this account obeys a policy: name its file, `policy = "FILE"` in seawall.toml, or SEAWALL_POLICY'
            )
        log = AuditLog(data_directory() / "engine" / f"{account.chain_id}-{checksum(account.address)}.db")
        judge = Engine(self.policy, engine, account.chain_id, account.validator, log)
        others = tuple(
            EngineClient(url, read_secret_file(token, "engine's token file").strip())
            for url, token in self.profile.engines
        )
        return Signer(
            account, owner, self.bundler, judge, self.reader, self.paymaster, engines=others, clock=self._clock
        )

    @property
    def _clock(self) -> Callable[[], float] | None:
        """A devnet mines when somebody sends, so its newest block may be old and the node yet sound; elsewhere that means a node that lags."""
        return None if self.account.chain_id == DEVNET_CHAIN_ID else time.time


@asynccontextmanager
async def connect(profile: Profile) -> AsyncIterator[Desk]:
    """The profile's account on its chain, or the only account this wallet knows there.

    Raises BadInput for another chain than the profile's, or when there is no saying which account is meant; NodeError.
    """
    async with AsyncExitStack() as stack:
        rpc = await stack.enter_async_context(RpcClient(profile.rpc_url))
        chain_id = await chain_of(profile, rpc)
        policy = policy_of(profile)
        book = book_of(profile.addresses, roles_of(profile))
        entry_point = ENTRY_POINTS[profile.entry_point]
        account = await _account(profile, rpc, chain_id, entry_point)
        bundler = await stack.enter_async_context(RpcClient(profile.bundler_url))
        paymaster = None
        if profile.paymaster_url is not None:
            client = await stack.enter_async_context(RpcClient(profile.paymaster_url))
            gas_token = await gas_token_of(profile, rpc)
            paymaster = PaymasterClient(client, account.entry_point, chain_id, gas_token, rpc)
        fresh = bytes(32) if policy is None else policy.policy_id
        reader = reader_of(profile, book, fresh, chain_id)
        yield Desk(profile, rpc, account, policy, book, reader, BundlerClient(bundler, account.entry_point), paymaster)


def reader_of(
    profile: Profile, book: Mapping[str, Address], fresh_policy: Hash32, chain_id: int | None = None
) -> FactsReader:
    """The reader of facts with everything that a profile adds to the chain's own: exported books, other prices, past prices. Raises
    BadInput.

    Rounds of feeds are kept in a file of chain `chain_id`; not those of a devnet, which begins anew under the same number.
    """
    kept = chain_id is not None and chain_id != DEVNET_CHAIN_ID
    past = Past(
        tuple(history_file(path) for path in profile.history),
        cache=RoundCache(data_directory() / "feeds" / f"{chain_id}.db" if kept else None),
    )
    exports, market = export_files(profile.exports), sources_of(profile.prices, Path())
    return FactsReader(adapters_of(book), book, fresh_policy, exports, market, past)


async def chain_of(profile: Profile, rpc: RpcClient) -> int:
    """The node's chain. Raises BadInput when it is not the profile's."""
    chain_id = await rpc.chain_id()
    if profile.chain_id not in (None, chain_id):
        raise BadInput(
            f"{profile.rpc_url.split('?')[0]} is on chain {chain_id}, this profile is for chain {profile.chain_id}"
        )
    return chain_id


async def _account(profile: Profile, rpc: RpcClient, chain_id: int, entry_point: EntryPoint) -> AccountClient:
    address = profile.account
    if address is None:
        known = [account.address for account in registry().all() if account.chain_id == chain_id]
        if len(known) != 1:
            raise BadInput(
                'which account? Set `account = "0x..."` in seawall.toml or SEAWALL_ACCOUNT; on this chain the wallet knows '
                + (", ".join(checksum(one) for one in known) or "none, make one with `seawall account create`")
            )
        (address,) = known
    found = registry().find(address, chain_id)
    if found is not None:
        client = AccountClient(rpc, ENTRY_POINTS[found.entry_point], chain_id, address, found.validator, found.birth)
        if await found.birth.address(rpc) != address:
            raise BadInput(
                f"the file of {checksum(address)} describes another account: it was changed, or the factory on this chain is not the "
                "one it was made with. Restore it from a backup"
            )
        return client
    if not await rpc.get_code(address):
        raise BadInput(
            f"there is no account at {checksum(address)} on chain {chain_id}, and this wallet does not know how to create it"
        )
    try:
        (native,) = b.NATIVE_OWNER_PATH.decode(await rpc.eth_call(address, b.NATIVE_OWNER_PATH.encode()))
    except RpcError as error:
        raise BadInput(f"{checksum(address)} is no RiskAccount: {error.message}") from error
    validator = None if native else profile.address("risk_validator")
    return AccountClient(rpc, entry_point, chain_id, address, validator)
