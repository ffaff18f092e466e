"""Who may act for whom: each executor, and the steward's office, is leased by exactly one process.

Whether a lease holds is decided by its holder and token in the row, inside the transaction that writes: clocks decide only when it may be
taken, never whether a write of the last holder is refused. A key in hand goes before none: what the steward keeps because its holder
died (to see its transactions settled), a process that has the key takes at once.
"""

from __future__ import annotations

from collections.abc import Sequence

from bundler.store.port import STEWARD, Held, Overtaken
from bundler.store.postgres_session import Batch
from contracts.types import Address, checksum

_ORPHANED = 2
"""After how many terms without its holder the steward takes a lease whose key it has not."""


async def fence(batch: Batch, holder: str, held: Held, name: Address) -> None:
    """Let through only who holds this lease and knows it. Raises Overtaken."""
    rows = await batch.run("SELECT holder, token FROM leases WHERE name = %s", (name,))
    if name not in held or rows != [(holder, held[name])]:
        whom = "the office of steward" if name == STEWARD else checksum(name)
        raise Overtaken(f"another process holds the lease of {whom} now, or it was lost for a while")


async def renew(batch: Batch, holder: str, lease_s: float, keys: Sequence[Address], most: int) -> dict[Address, int]:
    """Prolong what is held, take what may be taken. What is held afterwards, with its token."""
    rows = await batch.run(
        "SELECT name, holder, token, signs, until < clock_timestamp(), "
        "until < clock_timestamp() - make_interval(secs => %s) FROM leases",
        (_ORPHANED * lease_s,),
    )
    known = {row[0]: row for row in rows}
    own = {name: (token, signs) for name, who, token, signs, _, _ in rows if who == holder}
    for name in keys:
        if most and sum(signs for leased, (_, signs) in own.items() if leased != STEWARD) >= most:
            break
        _, _, token, signs, over, _ = known.get(name, (name, "", 0, False, True, True))
        if (name not in own or not own[name][1]) and (over or not signs):
            own[name] = token + 1, True
    if keys and STEWARD not in own and (STEWARD not in known or known[STEWARD][4]):
        own[STEWARD] = known[STEWARD][2] + 1 if STEWARD in known else 1, True
    if STEWARD in own:
        orphans = [name for name, row in known.items() if row[5] and name not in own]
        own |= {name: (known[name][2] + 1, False) for name in orphans if await _has_work(batch, name)}
    for name in [name for name, (_, signs) in own.items() if not signs and not await _has_work(batch, name)]:
        del own[name]
        await batch.run("UPDATE leases SET until = '-infinity', holder = '' WHERE name = %s", (name,))
    for name, (token, signs) in own.items():
        await batch.run(
            "INSERT INTO leases VALUES (%s, %s, %s, %s, clock_timestamp() + make_interval(secs => %s)) ON CONFLICT (name) DO UPDATE "
            "SET holder = excluded.holder, token = excluded.token, signs = excluded.signs, until = excluded.until",
            (name, holder, token, signs, lease_s),
        )
        if name not in known or known[name][2] != token:
            await batch.run(
                "UPDATE operations SET claimed_by = NULL, change = %s WHERE claimed_by = %s AND status = 'received'",
                (batch.change, name),
            )
    return {name: token for name, (token, _) in own.items()}


async def _has_work(batch: Batch, name: Address) -> bool:
    rows = await batch.run(
        "SELECT EXISTS (SELECT FROM bundles WHERE executor = %s AND status IN ('in_flight', 'included')) "
        "OR EXISTS (SELECT FROM operations WHERE claimed_by = %s)",
        (name, name),
    )
    return rows == [(True,)]


async def release(batch: Batch, holder: str) -> None:
    """Let others take at once what this process holds."""
    await batch.run("UPDATE leases SET until = '-infinity' WHERE holder = %s", (holder,))
