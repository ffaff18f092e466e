"""Which fee model a chain has: by the setting, else by its chain id."""

from __future__ import annotations

from collections.abc import Callable

from bundler.fees.arbitrum import ARB_GAS_INFO, Arbitrum
from bundler.fees.model import FeeModel
from bundler.fees.op_stack import GAS_PRICE_ORACLE, OpStack
from bundler.fees.plain import Plain
from bundler.fees.zk import SCROLL_ORACLE, Linea, Scroll, ZkSync
from contracts.errors import BadInput, SetupError
from contracts.rpc import RpcClient
from contracts.types import Address, checksum

MODELS: dict[str, Callable[[], FeeModel]] = {
    "l1": Plain,
    "op-stack": OpStack,
    "arbitrum": Arbitrum,
    "linea": Linea,
    "scroll": Scroll,
    "zksync": ZkSync,
}
AUTO = "auto"

_CHAINS: dict[str, tuple[int, ...]] = {
    # Ethereum, Sepolia, Holesky, Hoodi; Gnosis, BNB, Polygon, Avalanche; the usual ids of development nodes
    "l1": (1, 11_155_111, 17_000, 560_048, 100, 56, 137, 43_114, 1_337, 31_337),
    # OP Mainnet, Base, Zora, Mode, World Chain, Unichain, Ink, Soneium, Lisk; OP, Base and Unichain on Sepolia
    "op-stack": (10, 8_453, 7_777_777, 34_443, 480, 130, 57_073, 1_868, 1_135, 11_155_420, 84_532, 1_301),
    # One, Nova; Sepolia
    "arbitrum": (42_161, 42_170, 421_614),
    "linea": (59_144, 59_141),
    "scroll": (534_352, 534_351),
    "zksync": (324, 300),
}
_BY_CHAIN = {chain_id: name for name, chain_ids in _CHAINS.items() for chain_id in chain_ids}
_MARKS: tuple[tuple[Address, str], ...] = (
    (GAS_PRICE_ORACLE, "op-stack"),
    (ARB_GAS_INFO, "arbitrum"),
    (SCROLL_ORACLE, "scroll"),
)


def check_name(name: str) -> None:
    """Raises BadInput unless `name` is a fee model or `auto`."""
    if name != AUTO and name not in MODELS:
        raise BadInput(f"fee_model must be {AUTO} or one of {', '.join(MODELS)}, got {name!r}")


async def choose(rpc: RpcClient, chain_id: int, name: str = AUTO) -> FeeModel:
    """The model that `name` says; for `auto` the one in the table of chain ids.

    A chain that is not in the table is plain, unless it has a rollup's fee contract. Raises SetupError then, BadInput for an unknown name,
    NodeError.
    """
    check_name(name)
    if name != AUTO:
        return MODELS[name]()
    if chain_id in _BY_CHAIN:
        return MODELS[_BY_CHAIN[chain_id]]()
    for address, kind in _MARKS:
        if await rpc.get_code(address):
            raise SetupError(
                f"chain {chain_id} is not known here and has a fee contract at {checksum(address)}: set `fee_model` to {kind} if it "
                "charges for data that way, to l1 if data cost nothing beyond calldata gas"
            )
    return Plain()
