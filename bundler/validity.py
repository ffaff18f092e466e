"""When an operation is valid: what account and paymaster answered, and what is left of it.   Source: ERC-4337; EntryPoint v0.9."""

from __future__ import annotations

from dataclasses import dataclass, field

from bundler.chain import Head
from bundler.mempool import FOREVER, Entry
from contracts.errors import TimeRange

SIG_VALIDATION_FAILED = 1
_BLOCK_FLAG = 1 << 47
_MIN_BLOCKS = 2


@dataclass(frozen=True, slots=True)
class ValidationData:
    """What an account or a paymaster answered, or what both together did: each asks for a window of time or of blocks, and all must hold.

    Seconds of chain time and block numbers; the entry point wants after < now <= until.
    """

    aggregator: int = 0
    """0 valid, 1 signature failed, else an aggregator's address."""
    valid_after_s: int = 0
    valid_until_s: int = FOREVER
    valid_after_block: int = 0
    valid_until_block: int = FOREVER
    windows: int = field(default=0, compare=False)
    """Answers that are not 0: the entry point takes each apart, and compares it with the clock."""

    @classmethod
    def parse(cls, word: int, *, counts_blocks: bool = False) -> ValidationData:
        """aggregator (160 bits) | validUntil (48, 0 is forever) | validAfter (48), lowest first.

        With `counts_blocks` (entry point v0.9) the two are block numbers when both have their top bit set.
        """
        aggregator, after, until = word & (2**160 - 1), word >> 208, (word >> 160 & FOREVER) or FOREVER
        if counts_blocks and after & until & _BLOCK_FLAG:
            until_block = until & ~_BLOCK_FLAG
            until_block = FOREVER if until == FOREVER else until_block
            return cls(aggregator, 0, FOREVER, after & ~_BLOCK_FLAG, until_block, windows=1)
        return cls(aggregator, after, until, windows=int(word != 0))

    def both(self, other: ValidationData) -> ValidationData:
        """The intersection of two windows."""
        return ValidationData(
            self.aggregator or other.aggregator,
            max(self.valid_after_s, other.valid_after_s),
            min(self.valid_until_s, other.valid_until_s),
            max(self.valid_after_block, other.valid_after_block),
            min(self.valid_until_block, other.valid_until_block),
            self.windows + other.windows,
        )


def check_expiry(data: ValidationData, head: Head, min_validity_s: int) -> None:
    """Raises TimeRange if the operation does not stay valid for `min_validity_s` beyond `head`, or not for two blocks more.

    Two, because validity is judged on the latest block and the bundle comes in the next one at the earliest.
    """
    if data.valid_until_s < head.timestamp_s + min_validity_s:
        raise TimeRange(
            f"the operation expires too soon: valid until {data.valid_until_s}, the latest block is at {head.timestamp_s} and "
            f"{min_validity_s} s must remain; sign it with a later validUntil",
            rule="AA22",
        )
    if data.valid_until_block < head.number + _MIN_BLOCKS:
        raise TimeRange(
            f"the operation expires too soon: valid until block {data.valid_until_block}, the latest is {head.number} and "
            f"{_MIN_BLOCKS} more must remain; sign it with a later validUntil",
            rule="AA27",
        )


def is_due(entry: Entry, head: Head) -> bool:
    """Whether the validity windows are open: on this block, on which the bundle is proved, and as far as known in the next one.

    The entry point wants validAfter < timestamp <= validUntil, and the same of block numbers.
    """
    if not entry.valid_after_block < head.number < entry.valid_until_block:
        return False
    return entry.valid_after_s < head.timestamp_s <= entry.valid_until_s


def expiry(entry: Entry, head: Head) -> str:
    """Why no block after `head` can hold an operation that `Mempool.ended` gave."""
    if entry.valid_until_block <= head.number:
        return f"AA27 expired: valid until block {entry.valid_until_block}, the latest is {head.number}"
    return f"AA22 expired: valid until {entry.valid_until_s}, the latest block is at {head.timestamp_s}"
