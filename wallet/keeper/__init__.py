"""The guard path: new head -> read triggers (one multicall) -> due? -> UserOperation with the keeper's session key -> bundler ->
receipt -> audit.

Modules in that order: `watch` (heads and what is watched), `triggers` (the multicall), `fire` (the operation and the bundlers),
`transactions` (plain transactions: `touch`, and the last resort), `store` (what was promised and what happened), `status` (what
people and barriers ask), `guard` (the loop), `main` (the process). The chain decides whether a trigger is due; the keeper only says
"look now", so any number of keepers may run, and one that was killed continues from its store and the chain.
"""

CHECKPOINTS = (
    "keeper.record.before",
    "keeper.record.after",
    "keeper.send.before",
    "keeper.send.after",
    "keeper.sent.before",
    "keeper.sent.after",
    "keeper.settle.before",
    "keeper.settle.after",
    "keeper.head.before",
    "keeper.head.after",
    "keeper.transaction.record.before",
    "keeper.transaction.record.after",
    "keeper.transaction.send.before",
    "keeper.transaction.send.after",
)
"""Every point around a step that sends or records something (see contracts/faults.py)."""
