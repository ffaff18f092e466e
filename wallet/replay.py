"""A past decision made again from what was recorded: the same policy, the same facts, the same moment must give the same bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from contracts.errors import BadInput, SetupError
from contracts.types import keccak, parse_hash, to_hex
from policies import Decision, evaluate
from policies.canonical import FACTS_TAG, canonical_bytes, plain, policy_id
from policies.policy import build
from wallet.audit import DECISION, AuditLog, Entry
from wallet.engine import version
from wallet.recorded import facts_from_json
from wallet.sizing import recorded_sizes

FORM = "seawall-decision-1"


@dataclass(frozen=True, slots=True)
class Difference:
    """Where the decision made now differs from the one on record; None: not there at all."""

    path: str
    recorded: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.path}: recorded {json.dumps(self.recorded)}, now {json.dumps(self.now)}"


@dataclass(frozen=True, slots=True)
class Replay:
    """A decision judged again. `notes` say what else is different from then: the Seawall that runs, a model, the form of facts."""

    id: str
    decision: Decision
    recorded_by: str
    running: str
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]

    @property
    def identical(self) -> bool:
        return not self.differences

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "identical": self.identical,
            "recordedBy": self.recorded_by,
            "running": self.running,
            "differences": [{"path": d.path, "recorded": d.recorded, "now": d.now} for d in self.differences],
            "notes": list(self.notes),
            "decision": self.decision.to_json(),
        }


def bundle_of(log: AuditLog, key: str) -> dict[str, Any]:
    """Everything that a decision on record can be judged again from, as one JSON document.

    Raises BadInput when there is no such decision, SetupError when something it rests on is missing or was changed.
    """
    entry = log.find(key)
    if entry is not None and entry.kind != DECISION:
        entry = log.find(entry.body["decision"])
    if entry is None or entry.kind != DECISION:
        raise BadInput(f"no decision is recorded as {key}; `seawall policy audit tail` lists them")
    return _bundle(log, entry)


def _bundle(log: AuditLog, entry: Entry) -> dict[str, Any]:
    decision = entry.body["decision"]
    facts, policy = log.facts(parse_hash(decision["facts_hash"])), log.policy(parse_hash(entry.body["policyId"]))
    for what, found in (("facts", facts), ("policy", policy)):
        if found is None:
            raise SetupError(f"the {what} of entry {entry.seq} are not in {log.path}: restore a backup of it")
    assert facts is not None
    assert policy is not None
    probes = None if entry.body["probes"] is None else log.probes(parse_hash(entry.body["probes"]))
    return {
        "form": FORM,
        "seawall": entry.body["seawall"],
        "decision": decision,
        "facts": json.loads(facts),
        "policy": {"schema": policy[0], "document": policy[1]},
        "probes": probes,
    }


def replay(bundle: Mapping[str, Any]) -> Replay:
    """Judge again, and compare. Raises BadInput when the bundle is malformed or contradicts itself: its policy or facts are not those that
    its decision names.
    """
    try:
        if bundle["form"] != FORM:
            raise BadInput(f"this is no recorded decision of the form {FORM}")
        recorded, document = bundle["decision"], bundle["policy"]["document"]
        schema = int(bundle["policy"]["schema"])
        if to_hex(policy_id(schema, document)) != recorded["policy_id"]:
            raise BadInput("the policy beside the decision is not the one that the decision names")
        if to_hex(keccak(FACTS_TAG + canonical_bytes(bundle["facts"]))) != recorded["facts_hash"]:
            raise BadInput("the facts beside the decision are not those that the decision names")
        policy = build(document)
        at_s = int(recorded["decided_at_s"])
        identity = to_hex(keccak(_bytes(recorded)))
        recorded_by = str(bundle["seawall"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadInput(f"this is no recorded decision: {error!r}") from None
    facts = facts_from_json(bundle["facts"], older=True)
    decision = evaluate(policy, facts, at_s)
    notes = list(_notes(recorded, decision, recorded_by))
    if recorded.get("sizes") is not None:
        sizes = recorded_sizes(policy, facts, decision, bundle.get("probes") or [])
        if sizes is None:
            notes.append("the record lacks a simulation in another size that the search asks for now")
        decision = replace(decision, sizes=sizes)
    differences = tuple(_differences("", recorded, plain(decision)))
    return Replay(identity, decision, recorded_by, version(), differences, tuple(notes))


def _bytes(recorded: Mapping[str, Any]) -> bytes:
    """`Decision.to_bytes` of a decision's JSON form."""
    models = [{**model, "backend": ""} for model in recorded["models"]]
    return canonical_bytes({**recorded, "sizes": None, "models": models})


def _notes(recorded: Mapping[str, Any], decision: Decision, recorded_by: str) -> Iterator[str]:
    if recorded_by != version():
        yield f"recorded by Seawall {recorded_by}, this is {version()}"
    then = {model["name"]: (model["version"], model["backend"]) for model in recorded["models"]}
    now = {model.name: (model.version, model.backend) for model in decision.models}
    for name in sorted(then.keys() | now.keys()):
        if then.get(name) != now.get(name):
            yield f"model {name}: {_model(then.get(name))} then, {_model(now.get(name))} now"
    if recorded["facts_hash"] != to_hex(decision.facts_hash):
        yield "the form of facts has changed since: what did not exist then has its default now, and so the facts have another hash"


def _model(found: tuple[str, str] | None) -> str:
    return "none" if found is None else f"version {found[0]} on {found[1]}"


def _differences(path: str, then: Any, now: Any) -> Iterator[Difference]:
    """Leaves that differ. A model's backend decides nothing and is a note, no difference."""
    if isinstance(then, dict) and isinstance(now, dict):
        for key in sorted(then.keys() | now.keys()):
            if not (key == "backend" and path.startswith("models[")):
                yield from _differences(f"{path}.{key}".lstrip("."), then.get(key), now.get(key))
    elif isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        for i, (one, other) in enumerate(zip(then, now, strict=True)):
            yield from _differences(f"{path}[{i}]", one, other)
    elif then != now:
        yield Difference(path, then, now)
