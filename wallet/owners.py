"""One signature for many operations, and where the verifiers of owners are; the kinds of owner themselves are in `contracts.owners`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from contracts import abi
from contracts.deploy import deploy, init_code
from contracts.eoa import TransactionSender
from contracts.errors import BadInput
from contracts.typed_data import digest, struct_hash
from contracts.types import Address, Hash32, keccak

MAX_PROOF = 32
TYPE_ROOT = 0x05
_ROOT_DOMAIN = keccak(
    abi.encode(
        ["bytes32", "bytes32", "bytes32"],
        [keccak(b"EIP712Domain(string name,string version)"), keccak(b"Seawall RiskAccount"), keccak(b"1")],
    )
)


@dataclass(frozen=True, slots=True)
class OwnerVerifiers:
    """Where the ERC-7913 verifiers of one chain are. They keep nothing and belong to nobody."""

    p256: Address
    webauthn: Address
    multisig: Address


async def deploy_owner_verifiers(sender: TransactionSender) -> OwnerVerifiers:
    """Deploy them through the CREATE2 deployer, where they are not there yet. Raises SetupError, OperationFailed, NodeError."""
    return OwnerVerifiers(
        p256=await deploy(sender, init_code("P256Owner")),
        webauthn=await deploy(sender, init_code("WebAuthnOwner")),
        multisig=await deploy(sender, init_code("MultisigOwner")),
    )


@dataclass(frozen=True, slots=True)
class Leaf:
    """One operation under a root: what its owner would sign alone, and where it is valid."""

    chain_id: int
    entry_point: Address
    account: Address
    signable: Hash32

    @property
    def hash(self) -> Hash32:
        values = [self.chain_id, self.entry_point, self.account, self.signable]
        return keccak(abi.encode(["uint256", "address", "address", "bytes32"], values))


@dataclass(frozen=True, slots=True)
class OperationSet:
    """Operations of any chains, accounts and nonces that one signature authorises. Their nonce lane is `LANE_ROOT`."""

    leaves: tuple[Leaf, ...]

    def __post_init__(self) -> None:
        if not self.leaves:
            raise BadInput("a set of operations needs at least one")

    def _layers(self) -> list[list[Hash32]]:
        layers = [[leaf.hash for leaf in self.leaves]]
        while len(layers[-1]) > 1:
            below = layers[-1]
            layers.append([_parent(below[i : i + 2]) for i in range(0, len(below), 2)])
        return layers

    @property
    def root(self) -> Hash32:
        return self._layers()[-1][0]

    def digest(self) -> Hash32:
        """What the owner signs, once. The domain names no chain and no account; the leaves do."""
        return digest(_ROOT_DOMAIN, struct_hash("MerkleRoot(bytes32 root)", ["bytes32"], [self.root]))

    def proof(self, index: int) -> tuple[Hash32, ...]:
        """The siblings from leaf `index` up to the root."""
        found = []
        for layer in self._layers()[:-1]:
            if (index ^ 1) < len(layer):
                found.append(layer[index ^ 1])
            index //= 2
        return tuple(found)

    def signature(self, index: int, owner_signature: bytes) -> bytes:
        """The signature of operation `index`: 0x05 || length of the proof (1) || proof || the owner's signature over `digest()`."""
        proof = self.proof(index)
        return bytes([TYPE_ROOT, len(proof)]) + b"".join(proof) + owner_signature


def _parent(pair: Sequence[Hash32]) -> Hash32:
    """The node above one or two: a node without sibling moves up as it is."""
    return pair[0] if len(pair) == 1 else keccak(b"".join(sorted(pair)))
