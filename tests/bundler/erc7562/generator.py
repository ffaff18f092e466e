"""Contracts made up at random whose validation keeps or breaks the rules of ERC-7562, each rule in many disguises.

A case is an operation of an account, and perhaps a paymaster or a factory, whose programs are strung together from deeds. A deed is what
a rule is about (an opcode, a call, a slot); a disguise is where it stands: inline, in a library by any kind of call, two calls deep, in a
call that reverts, behind a branch that storage decides, in code that never runs, in push data. The same seed makes the same case.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from bundler.erc7562 import opcodes
from contracts.eip7702 import delegation
from contracts.entrypoint import V07, V08, EntryPoint
from contracts.entrypoint.base import DEPOSIT_TO
from contracts.types import Address, Wei, keccak
from contracts.userop import UserOperation
from tests.bundler.rig import GWEI

EXECUTOR = keccak(b"soundness executor")[:20]
INCREMENT_NONCE = keccak(b"incrementNonce(uint192)")[:4]
BALANCE_OF = keccak(b"balanceOf(address)")[:4]
RETURN_ZERO = bytes.fromhex("5f5f5260205ff3")
STOP, REVERT_NOTHING = b"\x00", bytes.fromhex("5f5ffd")
SLOAD, SSTORE, TLOAD, TSTORE = 0x54, 0x55, 0x5C, 0x5D


def push(value: int | bytes) -> bytes:
    """The shortest PUSH of a number, or of these very bytes."""
    data = value if isinstance(value, bytes) else value.to_bytes((value.bit_length() + 7) // 8)
    return bytes([0x5F + len(data)]) + data


def call(op: int, to: Address, *, gas: int | None = None, value: int = 0, size: int = 0) -> bytes:
    """Call `to` with the first `size` bytes of memory, and forget how it went. Without `gas`, all of it."""
    worth = push(value) if op in (opcodes.CALL, opcodes.CALLCODE) else b""
    much = b"\x5a" if gas is None else push(gas)
    return push(0) * 2 + push(size) + push(0) + worth + push(to) + much + bytes([op]) + b"\x50"


def remember(data: bytes) -> bytes:
    """`data` at the start of memory."""
    words = [data[i : i + 32].ljust(32, b"\0") for i in range(0, len(data), 32)]
    return b"".join(push(word) + push(32 * i) + b"\x52" for i, word in enumerate(words))


@dataclass(slots=True)
class Case:
    """One operation on made-up contracts, and what must be on chain for it."""

    seed: int
    entry_point: EntryPoint
    op: UserOperation
    codes: dict[Address, bytes]
    storage: dict[tuple[Address, int], int]
    staked: frozenset[Address]
    balance_wei: dict[Address, Wei]
    deeds: list[str] = field(default_factory=list)

    def turned(self) -> Case:
        """The same contracts on the other side of every branch."""
        storage = {place: 1 - value for place, value in self.storage.items()}
        return replace(self, storage=storage, deeds=[*self.deeds, "turned"])


class Generator:
    """Makes one case."""

    def __init__(self, seed: int, generation: str = "") -> None:
        self.rng = random.Random(f"{generation} {seed}")
        self.seed = seed
        self.salt = f"{generation} {seed}".encode()
        self.codes: dict[Address, bytes] = {}
        self.storage: dict[tuple[Address, int], int] = {}
        self.names: list[str] = []
        self.count = 0
        self.sender, self.paymaster, self.factory = (self.address() for _ in range(3))
        self.me = self.sender
        self.entry_point = self.rng.choice((V08, V08, V07))

    def address(self) -> Address:
        self.count += 1
        return keccak(b"soundness" + self.salt + bytes([self.count]))[:20]

    def contract(self, code: bytes) -> Address:
        address = self.address()
        self.codes[address] = code
        return address

    def chance(self, percent: int) -> bool:
        return self.rng.randrange(100) < percent

    # -- deeds --------------------------------------------------------------------------------------------------------------

    def harmless(self) -> bytes:
        return self.rng.choice(
            [push(1) + push(2) + b"\x01\x50", push(0) * 2 + b"\xa0", push(32) + push(0) + b"\x20\x50", b"\x33\x50", b"\x34\x50",
             b"\x38\x50", b"\x59\x50", b"\x3d\x50", push(7) + push(64) + b"\x52", b"\x46\x50"]
        )  # fmt: skip

    def blocked(self) -> bytes:
        op = self.rng.choice(sorted(opcodes.BLOCKED))
        if op == 0xFF:
            return push(EXECUTOR) + b"\xff"
        return (push(1) if op in (0x40, 0x49) else b"") + bytes([op]) + (b"" if op == opcodes.INVALID else b"\x50")

    def gas(self) -> bytes:
        return b"\x5a\x50" if self.chance(70) else b"\x5a\x80\x50\x50"

    def unassigned(self) -> bytes:
        return bytes([self.rng.choice(sorted(set(range(256)) - opcodes.ASSIGNED))])

    def starves(self) -> bytes:
        kind = self.rng.randrange(4)
        if kind == 0:
            return call(opcodes.CALL, self.contract(bytes.fromhex("5b5f56")), gas=self.rng.randrange(300, 3_000))
        if kind == 1:
            return call(opcodes.CALL, self.contract(push(1) + push(0) + b"\x55\x00"), gas=2_299)
        if kind == 2:
            return call(opcodes.STATICCALL, self.rng.choice((1, 2, 3, 6)).to_bytes(20), gas=self.rng.randrange(5, 40))
        return call(opcodes.CALL, self.contract(push(2**40) + b"\x51\x00"), gas=9_000)

    def creates(self) -> bytes:
        salt = push(5) if (two := self.chance(50)) else b""
        init = self.rng.choice((b"", bytes.fromhex("5f5ff3"), bytes.fromhex("425f5ff3")))
        value = 0 if self.chance(80) else 2**90  # more than there is: the node begins no frame
        return (
            remember(init) + salt + push(len(init)) + push(0) + push(value) + bytes([0xF5 if two else 0xF0]) + b"\x50"
        )

    def nobody(self) -> Address:
        return self.rng.choice([self.address(), EXECUTOR, bytes(20), (0x12).to_bytes(20), (0x101).to_bytes(20)])

    def empty(self) -> bytes:
        to = self.nobody()
        if self.chance(70):
            op = self.rng.choice((opcodes.CALL, opcodes.CALLCODE, opcodes.DELEGATECALL, opcodes.STATICCALL))
            return call(op, to, gas=None if self.chance(50) else 5_000)
        return self.looks_at(to)

    def looks_at(self, to: Address) -> bytes:
        kind = self.rng.randrange(4)
        if kind == 0:
            return push(0) * 2 + push(0) + push(to) + b"\x3c"
        if kind == 1:
            return push(to) + b"\x3f\x50"
        return push(to) + b"\x3b" + (b"\x15" if kind == 2 else b"") + b"\x50"

    def looks(self) -> bytes:
        return self.looks_at(self.rng.choice((self.sender, self.me, self.contract(STOP), self.entry_point.address)))

    def entry_point_use(self) -> bytes:
        ep = self.entry_point.address
        kind = self.rng.randrange(8)
        if kind == 0:
            return call(opcodes.CALL, ep, value=self.rng.choice((0, 5)))
        if kind == 1:
            return remember(DEPOSIT_TO.encode(self.rng.choice((self.sender, self.sender, EXECUTOR)))) + call(
                opcodes.CALL, ep, size=36, value=7
            )
        if kind == 2:
            return remember(INCREMENT_NONCE + bytes(31) + b"\x09") + call(opcodes.CALL, ep, size=36)
        if kind == 3:
            return remember(BALANCE_OF + self.sender.rjust(32, b"\0")) + call(
                self.rng.choice((opcodes.CALL, opcodes.STATICCALL, opcodes.DELEGATECALL)), ep, size=36
            )
        if kind == 4:
            return self.looks_at(ep)
        return remember(DEPOSIT_TO.encode(self.sender)) + call(opcodes.CALL, ep, size=36, value=3)

    def sends(self) -> bytes:
        to = self.rng.choice((self.contract(STOP), self.sender, (4).to_bytes(20), self.entry_point.address))
        op = self.rng.choice((opcodes.CALL, opcodes.CALL, opcodes.CALLCODE))
        return call(op, to, value=self.rng.choice((1, 2**100)), gas=50_000)

    def precompile(self) -> bytes:
        number = self.rng.choice((*range(1, 0x12), 0x100))
        return call(
            self.rng.choice((opcodes.CALL, opcodes.STATICCALL)),
            number.to_bytes(20),
            gas=100_000,
            size=self.rng.choice((0, 32, 128)),
        )

    def balances(self) -> bytes:
        return b"\x47\x50" if self.chance(50) else push(self.sender) + b"\x31\x50"

    def delegated(self) -> bytes:
        return call(self.rng.choice((opcodes.CALL, opcodes.STATICCALL)), self.contract(delegation(self.contract(STOP))))

    def reads_code(self) -> bytes:
        # copies a word of code and breaks off if it begins with INVALID: a trap must not be seen
        offset = self.rng.randrange(150)
        copy = self.rng.choice((b"\x39", b"\x30\x3c", push(self.me) + b"\x3c", b"\x33\x3c", b"\x50\x80\x39"))
        return push(32) + push(offset) + push(0) + copy + push(0) + b"\x51\x5f\x1a" + push(0xFE) + b"\x14\x5f\x57"

    def measures_code(self) -> bytes:
        return b"\x30\x3b" + self.rng.choice((b"", b"\x15")) + b"\x50"

    def slot_access(self) -> bytes:
        op = self.rng.choice((SLOAD, SLOAD, SSTORE, SSTORE, TLOAD, TSTORE))
        return (b"\x54\x50", push(1) + b"\x90\x55", b"\x5c\x50", push(1) + b"\x90\x5d")[
            (SLOAD, SSTORE, TLOAD, TSTORE).index(op)
        ]

    def slot(self) -> bytes:
        """Code that leaves a slot on the stack."""
        owner = self.rng.choice((self.sender, self.sender, self.me, self.paymaster, EXECUTOR))
        word = self.rng.choice((0, 3, 7, int.from_bytes(keccak(b"a namespace"))))
        kind = self.rng.randrange(12)
        if kind < 2:
            return push(self.rng.randrange(6))
        if kind < 4:
            return push(owner)
        if kind == 4:  # associated by its value, but nobody hashed it
            return push(keccak(owner.rjust(32, b"\0") + word.to_bytes(32)))
        who = push(owner) if self.chance(60) else b"\x33"  # CALLER: of a token, the account
        hashed = who + push(0) + b"\x52" + push(word) + push(32) + b"\x52" + push(64) + push(0) + b"\x20"
        return hashed + push(self.rng.choice((0, 0, 0, 1, 128, 129))) + b"\x01"

    def stores(self) -> bytes:
        return self.slot() + self.slot_access()

    def token(self) -> bytes:
        return call(opcodes.CALL, self.contract(self.stores() + STOP), gas=200_000)

    def mapping(self) -> bytes:
        # a token as they are: whoever calls finds a slot of its own
        hashed = b"\x33" + push(0) + b"\x52" + push(7) + push(32) + b"\x52" + push(64) + push(0) + b"\x20"
        return call(opcodes.CALL, self.contract(hashed + self.slot_access() + STOP), gas=200_000)

    def entities_storage(self) -> bytes:
        # somebody else's contract answers calls with its own storage access, whoever calls
        return call(opcodes.CALL, self.rng.choice((self.sender, self.paymaster)), gas=60_000)

    def again(self) -> bytes:
        return call(opcodes.STATICCALL, self.me, gas=20_000)

    def deed(self) -> bytes:
        kinds: list[tuple[int, Callable[[], bytes]]] = [
            (30, self.harmless), (7, self.blocked), (4, self.gas), (3, self.unassigned), (4, self.starves), (4, self.creates), (6, self.empty),
            (3, self.looks), (7, self.entry_point_use), (5, self.sends), (6, self.precompile), (3, self.balances), (3, self.delegated),
            (5, self.reads_code), (2, self.measures_code), (8, self.stores), (14, self.token),
            (9, self.mapping), (2, self.entities_storage), (1, self.again),
        ]  # fmt: skip
        made = self.rng.choices([kind for _, kind in kinds], [weight for weight, _ in kinds])[0]
        self.names.append(made.__name__)
        return made()

    # -- disguises ----------------------------------------------------------------------------------------------------------

    def program(self, end: bytes, first: bytes = b"") -> bytes:
        """A few deeds in disguise, and an end."""
        main, tail = bytearray(first), bytearray()
        branches: list[tuple[int, bytes]] = []
        hidden: list[tuple[int, bytes]] = []
        for _ in range(self.rng.choice((0, 1, 1, 1, 2, 3))):
            deed = self.deed()
            kind = self.rng.randrange(14)
            if kind >= 12:  # a jump that only a run can tell, into what looks like data
                main += b"\x61\0\0" + push(1) + b"\x01\x56"
                hidden.append((len(main) - 6, deed + end))
                main += b"\x5b"
                continue
            if kind < 4:
                main += deed
            elif kind < 7:
                op = self.rng.choice(
                    (opcodes.CALL, opcodes.CALL, opcodes.DELEGATECALL, opcodes.STATICCALL, opcodes.CALLCODE)
                )
                library = self.contract(deed + self.rng.choice((STOP, STOP, REVERT_NOTHING)))
                if self.chance(30):
                    library = self.contract(call(self.rng.choice((opcodes.CALL, opcodes.DELEGATECALL)), library) + STOP)
                main += call(op, library, gas=None if self.chance(50) else 150_000)
            elif kind < 9:  # storage decides; it is the account's own, or the paymaster's
                slot = self.rng.randrange(100, 200)
                self.storage[(self.me, slot)] = int(self.chance(50))
                main += push(slot) + b"\x54\x61"
                branches.append((len(main), deed + end))
                main += b"\0\0\x57"
            elif kind < 11:
                tail += deed
            else:
                main += push(deed[:32].ljust(32, b"\x42")) + b"\x50"
        main += end
        for place, block in branches:
            main[place : place + 2] = len(main).to_bytes(2)
            main += b"\x5b" + block
        main += tail
        for place, block in hidden:
            main[place : place + 2] = (len(main) - 1).to_bytes(2)
            main += b"\x5b" + block
        return bytes(main)

    def paymaster_end(self) -> bytes:
        """Answers (context, 0), the context mostly empty."""
        size = self.rng.choice((0, 0, 0, 0, 1, 32, 2048, 2049))
        padded = -(-size // 32) * 32
        return push(64) + push(0) + b"\x52" + push(size) + push(64) + b"\x52" + push(96 + padded) + push(0) + b"\xf3"

    def case(self) -> Case:
        with_paymaster, with_factory = self.chance(35), self.chance(12)
        self.me = self.sender
        first = self.mapping() if with_factory else b""
        account = self.program(RETURN_ZERO if self.chance(95) else REVERT_NOTHING, first)
        options: dict[str, object] = {}
        if with_paymaster:
            self.me = self.paymaster
            # the first program answers validatePaymasterUserOp, for anybody else it is a contract like others
            self.codes[self.paymaster] = self.program(self.paymaster_end())
            if self.chance(5):
                self.codes[self.paymaster] = delegation(self.contract(self.paymaster_end()))
            options |= {
                "paymaster": self.paymaster, "paymaster_verification_gas_limit": 900_000, "paymaster_post_op_gas_limit": 50_000
            }  # fmt: skip
        if with_factory:
            self.me = self.factory
            init = b"\x61" + len(account).to_bytes(2) + b"\x80\x60\x0a\x5f\x39\x5f\xf3"
            init += bytes(10 - len(init)) + account
            child = keccak(b"\xff" + self.factory + bytes(32) + keccak(init))[12:]
            self.codes[self.factory] = self.deploying(init, child)
            options |= {"factory": self.factory, "factory_data": b"\1"}
            self.sender = child
        else:
            self.codes[self.sender] = account
        staked = frozenset(a for a in (self.sender, self.paymaster, self.factory) if self.chance(35))
        op = UserOperation(
            self.sender, 0, b"", call_gas_limit=50_000, verification_gas_limit=1_500_000, pre_verification_gas=80_000,
            max_fee_per_gas=20 * GWEI, max_priority_fee_per_gas=2 * GWEI, **options,  # type: ignore[arg-type]
        )  # fmt: skip
        wei = dict.fromkeys((self.sender, self.paymaster), 10**18)
        return Case(self.seed, self.entry_point, op, self.codes, self.storage, staked, wei, self.names)

    def deploying(self, init: bytes, child: Address) -> bytes:
        """A factory that deploys by CREATE2 and answers with the address."""
        copy = b"".join(push(init[i : i + 32].ljust(32, b"\0")) + push(i) + b"\x52" for i in range(0, len(init), 32))
        deeds = self.deed() if self.chance(40) else b""
        create = copy + push(0) + push(len(init)) + push(0) * 2 + b"\xf5\x50"
        return deeds + create + push(child) + push(0) + b"\x52" + push(32) + push(0) + b"\xf3"
