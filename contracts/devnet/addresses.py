"""Where everything on the devnet is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from contracts.types import Address, checksum, parse_address


@dataclass(frozen=True, slots=True)
class Addresses:
    """Every contract of the devnet. The protocols' first, ours last (for EntryPoint v0.8)."""

    entry_point_v07: Address
    entry_point_v08: Address
    entry_point_v09: Address
    multicall3: Address
    weth: Address
    usdc: Address
    feed_eth_usd: Address
    feed_usdc_usd: Address
    sequencer_feed: Address
    uniswap_factory: Address
    uniswap_pool: Address
    uniswap_router: Address
    uniswap_quoter: Address
    uniswap_position_manager: Address
    aave_pool: Address
    aave_addresses_provider: Address
    aave_oracle: Address
    aave_data_provider: Address
    aave_sentinel: Address
    aave_atoken_weth: Address
    perp_clearing_house: Address
    perp_vault: Address
    perp_exchange: Address
    perp_account_balance: Address
    perp_market_registry: Address
    perp_order_book: Address
    perp_insurance_fund: Address
    perp_delegate_approval: Address
    perp_config: Address
    perp_base_token: Address
    perp_quote_token: Address
    perp_pool: Address
    perp_price_feed: Address
    lyra_option_market: Address
    lyra_option_token: Address
    lyra_greek_cache: Address
    lyra_option_pricer: Address
    lyra_liquidity_pool: Address
    lyra_liquidity_token: Address
    lyra_short_collateral: Address
    lyra_pool_hedger: Address
    lyra_synthetix_adapter: Address
    lyra_gwav_oracle: Address
    lyra_viewer: Address
    lyra_keeper: Address
    lyra_black_scholes: Address
    lyra_rates: Address
    lyra_quote: Address
    lyra_base: Address
    lyra_quote_pool: Address
    gas_price_oracle: Address
    l1_block: Address
    risk_account_implementation: Address
    risk_account_factory: Address
    risk_validator: Address
    session_validator: Address
    stop_loss: Address
    health_guard: Address
    auto_rebalance: Address
    delta_hedge: Address
    policy_hook: Address
    equity_breaker: Address
    emergency_freeze: Address
    recovery: Address
    multisig_owner: Address
    verifying_paymaster: Address
    perp_adapter: Address
    perp_hedge_adapter: Address
    uniswap_adapter: Address
    uniswap_route_adapter: Address
    lyra_adapter: Address
    lyra_delta: Address
    aave_adapter: Address
    aave_unwind_adapter: Address
    perp_equity: Address
    aave_equity: Address

    def to_json(self) -> dict[str, str]:
        """Checksummed, by name."""
        return {f.name: checksum(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def from_json(cls, found: Mapping[str, str]) -> Addresses:
        """Raises KeyError or InvalidFields if one is missing or malformed."""
        return cls(**{f.name: parse_address(found[f.name], f.name) for f in fields(cls)})
