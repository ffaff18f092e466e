"""Bundles that pay for their data: an operation joins only if it pays what its own data add, and all together pay what they share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bundler.chain import Head
from bundler.fees.model import price_of
from bundler.fees.pricing import Pricing
from bundler.gas import BUNDLE_OVERHEAD, OTHER_BENEFICIARY, TRANSACTION_GAS, pre_verification_gas
from bundler.mempool import Entry
from contracts.entrypoint import EntryPoint
from contracts.types import Hash32, Wei


def _shared_gas(*, other_beneficiary: bool) -> int:
    return TRANSACTION_GAS + BUNDLE_OVERHEAD + (OTHER_BENEFICIARY if other_beneficiary else 0)


def earned_for_data(entry: Entry, head: Head, *, other_beneficiary: bool = False) -> Wei:
    """What the operation's preVerificationGas leaves for data once its own gas in the bundle is paid; may be negative.

    (preVerificationGas - own calldata and overhead) x the price it pays. What all operations share is not taken off.
    """
    own = pre_verification_gas(
        entry.entry_point, entry.op, int(entry.authorization is not None), other_beneficiary=other_beneficiary
    ) - _shared_gas(other_beneficiary=other_beneficiary)
    return (entry.op.pre_verification_gas - own) * price_of(entry.op, head)


async def shape(
    pricing: Pricing,
    entry_point: EntryPoint,
    entries: Sequence[Entry],
    head: Head,
    after: Callable[[Entry], Sequence[Entry]],
    *,
    other_beneficiary: bool = False,
) -> list[Entry]:
    """Return the entries that pay for their data, in the order given; none if together they do not cover what a bundle costs anyway.

    An operation's marginal cost is first taken as that of its data alone (one question for all); only one that does not pay that is
    measured beside those chosen before it, with which its data may compress better. `after` gives the pending operations that need
    one in front of them: they go with it. Raises FeeDataError, NodeUnreachable.
    """
    if not pricing.model.charges_data or not entries:
        return list(entries)
    empty, *alone = await pricing.charges(entry_point, [[], *([entry.candidate] for entry in entries)], head)
    kept: list[Entry] = []
    gone: set[Hash32] = set()
    earned_wei = 0
    for entry, charge in zip(entries, alone, strict=True):
        if entry.hash in gone:
            continue
        earns_wei = earned_for_data(entry, head, other_beneficiary=other_beneficiary)
        marginal_wei = charge.fee_wei - empty.fee_wei
        if earns_wei < marginal_wei and kept:
            before = [one.candidate for one in kept]
            without, beside = await pricing.charges(entry_point, [before, [*before, entry.candidate]], head)
            marginal_wei = beside.fee_wei - without.fee_wei
        if earns_wei < marginal_wei:
            gone |= {entry.hash, *(other.hash for other in after(entry))}
            continue
        kept.append(entry)
        earned_wei += earns_wei
    if not kept:
        return []
    (charge,) = await pricing.charges(entry_point, [[entry.candidate for entry in kept]], head)
    # Every operation pays at least the bundle's own price, that of the least of them.
    shared_wei = _shared_gas(other_beneficiary=other_beneficiary) * min(price_of(entry.op, head) for entry in kept)
    return kept if earned_wei >= charge.fee_wei + shared_wei else []
