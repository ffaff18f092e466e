"""Names for addresses: a policy says `perp.clearing_house`, a deployment says where that is.

A name is one of the contracts below, a role below, or one that the document itself declares under `addresses`.
"""

from __future__ import annotations

from collections.abc import Mapping

from contracts.types import Address

ACCOUNT = "account"
"""The account itself."""

CONTRACTS: Mapping[str, str] = {
    "usdc": "usdc",
    "weth": "weth",
    "multicall3": "multicall3",
    "perp.clearing_house": "perp_clearing_house",
    "perp.vault": "perp_vault",
    "perp.account_balance": "perp_account_balance",
    "perp.exchange": "perp_exchange",
    "perp.config": "perp_config",
    "perp.order_book": "perp_order_book",
    "perp.delegate_approval": "perp_delegate_approval",
    "perp.pool": "perp_pool",
    "perp.eth": "perp_base_token",
    "uniswap.router": "uniswap_router",
    "uniswap.quoter": "uniswap_quoter",
    "uniswap.pool": "uniswap_pool",
    "uniswap.factory": "uniswap_factory",
    "uniswap.position_manager": "uniswap_position_manager",
    "aave.pool": "aave_pool",
    "aave.data_provider": "aave_data_provider",
    "aave.oracle": "aave_oracle",
    "lyra.option_market": "lyra_option_market",
    "lyra.option_token": "lyra_option_token",
    "lyra.greek_cache": "lyra_greek_cache",
    "lyra.liquidity_pool": "lyra_liquidity_pool",
    "lyra.short_collateral": "lyra_short_collateral",
    "lyra.synthetix_adapter": "lyra_synthetix_adapter",
    "lyra.viewer": "lyra_viewer",
    "lyra.keeper": "lyra_keeper",
    "lyra.quote": "lyra_quote",
    "lyra.base": "lyra_base",
    "lyra.quote_pool": "lyra_quote_pool",
    "feed.eth": "feed_eth_usd",
    "feed.usdc": "feed_usdc_usd",
    "feed.sequencer": "sequencer_feed",
    "seawall.risk_validator": "risk_validator",
    "seawall.session_validator": "session_validator",
    "seawall.stop_loss": "stop_loss",
    "seawall.health_guard": "health_guard",
    "seawall.auto_rebalance": "auto_rebalance",
    "seawall.delta_hedge": "delta_hedge",
    "seawall.policy_hook": "policy_hook",
    "seawall.equity_breaker": "equity_breaker",
    "seawall.emergency_freeze": "emergency_freeze",
    "seawall.recovery": "recovery",
    "seawall.multisig_owner": "multisig_owner",
    "seawall.erc20_paymaster": "erc20_paymaster",
    "seawall.perp_adapter": "perp_adapter",
    "seawall.perp_hedge_adapter": "perp_hedge_adapter",
    "seawall.uniswap_adapter": "uniswap_adapter",
    "seawall.uniswap_route_adapter": "uniswap_route_adapter",
    "seawall.lyra_adapter": "lyra_adapter",
    "seawall.lyra_delta": "lyra_delta",
    "seawall.aave_adapter": "aave_adapter",
    "seawall.aave_unwind_adapter": "aave_unwind_adapter",
    "seawall.perp_equity": "perp_equity",
    "seawall.aave_equity": "aave_equity",
}
"""Contract names of policy files, and what a deployments file (`seawall devnet --json`) calls them."""

ROLES = (
    "owner", "guardian", "guardian_2", "guardian_3", "keeper", "engine", "engine_2", "engine_3", "treasury", "trader",
    "risk_officer",
)  # fmt: skip
"""People and services that the caller binds to addresses."""

TOKEN_DECIMALS: Mapping[str, int] = {"usdc": 6, "weth": 18}
"""Decimals of the tokens that guards handle, by their names."""

KNOWN: tuple[str, ...] = (ACCOUNT, *CONTRACTS, *ROLES)


def book_of(deployment: Mapping[str, Address], roles: Mapping[str, Address] | None = None) -> dict[str, Address]:
    """Names to addresses, from a deployment's flat names and the caller's roles. Unknown entries are left out."""
    book = {name: deployment[flat] for name, flat in CONTRACTS.items() if flat in deployment}
    return book | {name: address for name, address in (roles or {}).items() if name in ROLES}
