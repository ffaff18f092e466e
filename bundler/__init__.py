"""ERC-4337 bundler. Path of one operation, a module each:

server -> intake: checks -> simulation -> rules -> mempool/store -> builder -> submit -> receipts (or resubmit).
`lookup` answers questions about what became of it, `estimate` prices one, `service` drives the loop, `main` is the process.
"""

from __future__ import annotations

CHECKPOINTS: tuple[str, ...] = (
    "bundler.operation.record.before",
    "bundler.operation.record.after",
    "bundler.bundle.record.before",
    "bundler.bundle.record.after",
    "bundler.bundle.send.before",
    "bundler.bundle.send.after",
    "bundler.inclusion.record.before",
    "bundler.inclusion.record.after",
    "bundler.drop.record.before",
    "bundler.drop.record.after",
    "bundler.resubmit.record.before",
    "bundler.resubmit.record.after",
    "bundler.resubmit.send.before",
    "bundler.resubmit.send.after",
    "bundler.reorg.record.before",
    "bundler.reorg.record.after",
    "bundler.loss.record.before",
    "bundler.loss.record.after",
    "bundler.finality.record.before",
    "bundler.finality.record.after",
)
"""Every point at which a test may kill the process (contracts/faults.py)."""
