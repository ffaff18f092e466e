"""Building a chain: one transaction a block, on a clock of its own, so that the same inputs give the same chain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from contracts import abi
from contracts.abi import Function
from contracts.devnet.accounts import Accounts
from contracts.devnet.packages import Package, locked
from contracts.eoa import Eoa
from contracts.errors import RpcError, SetupError
from contracts.rpc import RpcClient
from contracts.types import Address, Wei, checksum, parse_address, parse_bytes, to_hex

CHAIN_ID = 1337
GAS_LIMIT = 16_000_000
"""Gas limit of every transaction here: below EIP-7825's cap of 2^24."""
MAX_FEE_WEI = 100 * 10**9
PRIORITY_FEE_WEI = 10**6
FOREVER = 2**64 - 1
"""A deadline that never passes."""


def sign(eoa: Eoa, nonce: int, to: Address | None, data: bytes, *, value: Wei = 0, gas: int = GAS_LIMIT) -> str:
    """A raw transaction with the devnet's fixed fees. No node is asked: call data is all it depends on."""
    fields: dict[str, Any] = {
        "type": 2,
        "chainId": CHAIN_ID,
        "nonce": nonce,
        "gas": gas,
        "maxFeePerGas": MAX_FEE_WEI,
        "maxPriorityFeePerGas": PRIORITY_FEE_WEI,
        "value": value,
        "data": data,
    }
    if to is not None:
        fields["to"] = checksum(to)
    return to_hex(eoa.sign_transaction(fields)[0])


class Builder:
    """Deploys and configures with anvil's automatic mining switched off. `now_s` is the time of the latest block."""

    def __init__(self, rpc: RpcClient, accounts: Accounts, now_s: int) -> None:
        self.rpc = rpc
        self.accounts = accounts
        self.now_s = now_s
        self._nonces: dict[Address, int] = {}

    async def mine(self, seconds: int = 1) -> None:
        """Mine one block, `seconds` after the last."""
        self.now_s += seconds
        await self.rpc.call("evm_mine", self.now_s)

    async def transact(
        self, to: Address | None, data: bytes, *, value: Wei = 0, sender: Eoa | None = None
    ) -> dict[str, Any]:
        """Send from `sender` (the deployer), mine, and return the receipt. Raises SetupError with the revert reason."""
        eoa = sender or self.accounts.deployer
        nonce = self._nonces.get(eoa.address)
        if nonce is None:
            nonce = await self.rpc.get_nonce(eoa.address)
        tx_hash = await self.rpc.call("eth_sendRawTransaction", sign(eoa, nonce, to, data, value=value))
        self._nonces[eoa.address] = nonce + 1
        await self.mine()
        receipt: dict[str, Any] | None = await self.rpc.receipt(parse_bytes(tx_hash))
        if receipt is None or receipt["status"] != "0x1":
            where = checksum(to) if to else "a creation"
            reason = "it was not mined" if receipt is None else await self._reason(eoa, to, data, value)
            raise SetupError(f"building the devnet failed: {where}, call data {to_hex(data[:4])}: {reason}")
        return receipt

    async def _reason(self, eoa: Eoa, to: Address | None, data: bytes, value: Wei) -> str:
        request = {"from": to_hex(eoa.address), "data": to_hex(data), "value": hex(value), "gas": hex(GAS_LIMIT)}
        if to is not None:
            request["to"] = to_hex(to)
        try:
            await self.rpc.call("eth_call", request, "latest")
        except RpcError as error:
            return f"{error.message} {error.data or ''}"
        return "reverted, but not when repeated"

    async def deploy(self, code: bytes, types: Sequence[str] = (), values: Sequence[object] = ()) -> Address:
        """Create a contract from the deployer."""
        receipt = await self.transact(None, code + abi.encode(types, values))
        return parse_address(receipt["contractAddress"])

    async def send(
        self, to: Address, function: str, *args: object, value: Wei = 0, sender: Eoa | None = None
    ) -> dict[str, Any]:
        """Call `name(types)` in a transaction."""
        return await self.transact(to, Function.parse(function).encode(*args), value=value, sender=sender)

    async def read(self, to: Address, function: str, *args: object) -> Any:
        """Call `name(types)(types)` without a transaction; a single return value comes alone."""
        parsed = Function.parse(function)
        values = parsed.decode(await self.rpc.eth_call(to, parsed.encode(*args)))
        return values[0] if len(values) == 1 else values


def package(spec: str) -> Package:
    """A locked package by `name@version`."""
    return locked()[spec]


def bytecode(found: Package, member: str) -> bytes:
    """Creation code in an artifact of truffle, hardhat or forge.."""
    code = found.json(member)["bytecode"]
    text: str = code["object"] if isinstance(code, dict) else code
    return parse_bytes(text if text.startswith("0x") else "0x" + text, member)


def linked(found: Package, member: str, libraries: Mapping[str, Address]) -> bytes:
    """Creation code in an artifact of hardhat, with the addresses of the libraries it calls put in. Raises SetupError without one."""
    artifact = found.json(member)
    code: str = artifact["bytecode"][2:]
    for names in artifact["linkReferences"].values():
        for name, places in names.items():
            if name not in libraries:
                raise SetupError(f"{found.name}'s {member} needs the library {name} before it is deployed")
            for place in places:
                at = 2 * place["start"]
                code = code[:at] + libraries[name].hex() + code[at + 40 :]
    return bytes.fromhex(code)
