"""ERC-7677 sponsor service: pays the gas of operations that a trusted policy engine approved, within a budget.

Read in this order: `sponsor` (pure: may this operation be sponsored?), `ledger` (what is promised and what was spent), `chain`
(what the entry point says became of the promises), `server` (the JSON-RPC surface), `main` (the process).
"""

CHECKPOINTS: tuple[str, ...] = (
    "paymaster.reserve.before",
    "paymaster.reserve.after",
    "paymaster.answer.before",
    "paymaster.answer.after",
    "paymaster.settle.before",
    "paymaster.settle.after",
    "paymaster.undo.before",
    "paymaster.undo.after",
    "paymaster.release.before",
    "paymaster.release.after",
)
"""Every point at which a test may kill the service (contracts.faults)."""

__all__ = ["CHECKPOINTS"]
