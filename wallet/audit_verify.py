"""Whether an audit log is what the engine wrote.

Found: an entry that was changed, removed, put in between or moved; facts, policies or simulations that were changed, or removed while an
entry rests on them; an index that does not follow from the entries; a log that ends before a head that the engine signed, or does not
lead to it, as long as the verifier has that head: from the database, from `NAME.head` beside it, or kept elsewhere.

Not found: that the whole file *and* every signed head the verifier has were put back to an earlier state (keep a head on another
machine: `seawall policy audit head`); entries behind the last signed head that were cut off cleanly; what somebody writes who holds the
engine's key; what the engine never recorded.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from contracts.errors import BadInput, SetupError
from contracts.types import Hash32, checksum, parse_address, parse_bytes, parse_hash, to_hex
from policies.attestation import recover_signer
from policies.canonical import policy_id
from policies.portfolio import EquityPoint
from wallet.audit import DECISION, GENESIS, AuditLog, Entry, Head, Transaction, entry_hash, head_digest
from wallet.equity import curve


@dataclass(frozen=True, slots=True)
class Report:
    """What was looked at, and everything wrong with it, a line each. `signed_until` is the place of the last head that fits, 0: none."""

    entries: int
    tip: Hash32
    facts: int
    policies: int
    heads: int
    signed_until: int
    engines: tuple[str, ...]
    problems: tuple[str, ...]

    @property
    def sound(self) -> bool:
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        return {
            "sound": self.sound,
            "entries": self.entries,
            "tip": to_hex(self.tip),
            "facts": self.facts,
            "policies": self.policies,
            "heads": self.heads,
            "signedUntil": self.signed_until,
            "engines": list(self.engines),
            "problems": list(self.problems),
        }


def read_head(path: Path) -> Head:
    """A signed head from a file, as `seawall policy audit head` prints it. Raises BadInput."""
    try:
        body = json.loads(path.read_text())
        return Head(
            int(body["seq"]),
            parse_hash(body["hash"], "hash"),
            parse_address(body["engine"], "engine"),
            parse_bytes(body["signature"], "signature"),
        )
    except (OSError, ValueError, KeyError, TypeError, BadInput) as error:
        raise BadInput(f"{path} is no signed head of an audit log ({error})") from None


def verify(log: AuditLog, heads: Sequence[Head] = ()) -> Report:
    """Look at everything. `heads` are signed heads from elsewhere, beside those that the log itself keeps. Raises SetupError for a file
    that is no audit log at all, BadInput when there is none.
    """
    if not log.path.exists():
        raise BadInput(f"there is no audit log at {log.path}")
    problems: list[str] = []
    with log.reading() as now:
        known = list(heads) + [Head(*row) for row in now.db.execute("SELECT seq, hash, engine, signature FROM heads")]
        if log.head_path.exists():
            try:
                known.append(read_head(log.head_path))
            except BadInput as error:
                problems.append(error.message)
        at = {head.seq: b"" for head in known}
        used: dict[str, set[bytes]] = {"facts": set(), "probes": set()}
        judged_by: set[bytes] = set()
        points: dict[str, set[EquityPoint]] = {}
        records: dict[str, tuple[int, int, str]] = {}
        count, tip = 0, GENESIS
        for entry, previous, text in _rows(now, problems):
            count += 1
            if entry.seq != count:
                problems.append(f"entry {count} is missing: after {count - 1} comes {entry.seq}")
                count = entry.seq
            if entry.hash != entry_hash(entry.seq, previous, entry.kind, text):
                problems.append(
                    f"entry {entry.seq} ({entry.kind}) does not fit its hash: it was changed, or what stood before it was removed or moved"
                )
            tip = entry.hash
            if entry.seq in at:
                at[entry.seq] = tip
            _collect(entry, used, judged_by, points, problems)
            _advance(entry, records)
        found_heads = _heads(known, at, count, problems)
        facts = _evidence(now, log, used, problems)
        policies = _policies(now, judged_by, problems)
        _equity(now, points, problems)
        kept = {row[0]: tuple(row[1:]) for row in now.db.execute("SELECT * FROM records")}
        if kept != records:
            problems.append("where the record of an account stands does not follow from the entries")
    engines = sorted({checksum(head.engine) for head in found_heads})
    return Report(
        entries=count,
        tip=tip,
        facts=facts,
        policies=policies,
        heads=len(found_heads),
        signed_until=max((head.seq for head in found_heads), default=0),
        engines=tuple(engines),
        problems=tuple(problems),
    )


def _rows(now: Transaction, problems: list[str]) -> Iterator[tuple[Entry, Hash32, str]]:
    """Entries in order, each with the hash that is *recorded* before it, so that one change is reported once, and its text."""
    previous = GENESIS
    for seq, kind, text, digest in now.db.execute("SELECT seq, kind, body, hash FROM entries ORDER BY seq"):
        try:
            body = json.loads(text)
            if not isinstance(body, dict):
                raise ValueError
        except ValueError:
            problems.append(f"entry {seq} ({kind}) cannot be read")
            body = {}
        yield Entry(seq, kind, body, digest), previous, text
        previous = digest


def _collect(
    entry: Entry,
    used: dict[str, set[bytes]],
    judged_by: set[bytes],
    points: dict[str, set[EquityPoint]],
    problems: list[str],
) -> None:
    """What an entry says it rests on."""
    if entry.kind != DECISION:
        return
    try:
        used["facts"].add(parse_hash(entry.body["decision"]["facts_hash"]))
        if entry.body["probes"] is not None:
            used["probes"].add(parse_hash(entry.body["probes"]))
        judged_by.add(parse_hash(entry.body["policyId"]))
        if (seen := entry.body["equity"]) is not None:
            point = EquityPoint(int(seen["time"]), Decimal(seen["equity"]), Decimal(seen["paidIn"]))
            points.setdefault(entry.body["account"], set()).add(point)
    except (KeyError, TypeError, ValueError, ArithmeticError, BadInput):
        problems.append(f"entry {entry.seq} is no decision in the form that the engine writes")


def _advance(entry: Entry, records: dict[str, tuple[int, int, str]]) -> None:
    """Where the record of an account stands after an entry."""
    body = entry.body
    if entry.kind != DECISION or not {"account", "completeSince", "block", "paidIn"} <= body.keys():
        return
    since_s, block, paid_in = records.get(body["account"], (body["completeSince"], 0, "0"))
    if body["block"] >= block:
        block, paid_in = body["block"], body["paidIn"]
    records[body["account"]] = (since_s, block, paid_in)


def _heads(known: Sequence[Head], at: dict[int, bytes], count: int, problems: list[str]) -> list[Head]:
    """Heads that fit the chain."""
    fitting = []
    for head in known:
        signer = recover_signer(head_digest(head.seq, head.hash), head.signature)
        if signer != head.engine:
            problems.append(
                f"the head signed at entry {head.seq} does not bear the signature of {checksum(head.engine)}"
            )
        elif head.seq > count:
            problems.append(f"the log was cut short: it ends at entry {count}, a head was signed at entry {head.seq}")
        elif at[head.seq] != head.hash:
            problems.append(f"the log was rewritten: entry {head.seq} is not the one whose head was signed")
        else:
            fitting.append(head)
    return fitting


def _evidence(now: Transaction, log: AuditLog, used: dict[str, set[bytes]], problems: list[str]) -> int:
    """Facts and simulations that entries rest on: there, and with the hash they are kept under. Returns how many facts there are."""
    counts = []
    for name, read in (("facts", log.facts), ("probes", log.probes)):
        kept: set[bytes] = set()
        for (digest,) in now.db.execute(f"SELECT hash FROM {name}"):  # noqa: S608
            kept.add(digest)
            try:
                read(digest)
            except SetupError as error:
                problems.append(error.message)
        missing = sorted(used[name] - kept)
        problems += [f"the {name} {to_hex(digest)} that a decision rests on are missing" for digest in missing]
        counts.append(len(kept))
    return counts[0]


def _policies(now: Transaction, judged_by: set[bytes], problems: list[str]) -> int:
    kept: set[bytes] = set()
    for identity, schema, document in now.db.execute("SELECT id, schema, document FROM policies"):
        kept.add(identity)
        try:
            fits = policy_id(schema, json.loads(document)) == identity
        except (ValueError, TypeError, OverflowError):
            fits = False
        if not fits:
            problems.append(f"the recorded policy {to_hex(identity)} was changed")
    problems += [f"the policy {to_hex(one)} that a decision was made by is missing" for one in sorted(judged_by - kept)]
    return len(kept)


def _equity(now: Transaction, points: dict[str, set[EquityPoint]], problems: list[str]) -> None:
    """The thinned curve holds nothing but points on record, and of each account the first, the last, the lowest and the highest."""
    profit: Callable[[EquityPoint], Decimal] = lambda p: p.equity - p.paid_in  # noqa: E731
    accounts = points.keys() | {account for (account,) in now.db.execute("SELECT DISTINCT account FROM equity")}
    for account in sorted(accounts):
        recorded = points.get(account, set())
        kept = set(curve(now.db, parse_address(account)))
        complete = not recorded or all(
            choose(map(profit, kept), default=None) == choose(map(profit, recorded)) for choose in (min, max)
        )
        ends = not recorded or max(kept, key=lambda p: p.time_s, default=None) is not None
        if kept - recorded or not complete or not ends:
            problems.append(f"the equity curve of {account} does not follow from the entries")
