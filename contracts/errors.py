"""The error tree.

SeawallError                      exit 1   -32603
├── BadInput                      exit 2   -32602   what the caller gave cannot be used
│   └── InvalidFields                      -32602   a malformed JSON-RPC parameter or UserOperation field
├── SetupError                    exit 3            something on this machine is missing or broken
│   └── ArtifactError                               a shipped artifact is missing or does not match its lock
├── NodeError                     exit 4            talking to an Ethereum node or to one of our services
│   ├── NodeUnreachable                             no answer at all
│   └── RpcError                  (its own code)    an answer that is an error; carries code, message, data
├── Refused                       exit 5            a policy or a budget said no
│   ├── PolicyRefused                               the Decision denies; carries it
│   └── SponsorRefused                     -32500   the paymaster service will not pay
├── OperationRejected             exit 6   -32500   a UserOperation failed validation; carries the rule id
│   ├── RejectedByEntryPoint               -32500   AAxx from the sender or factory
│   ├── RejectedByPaymaster                -32501   AA3x
│   ├── OpcodeRule                         -32502
│   ├── TimeRange                          -32503
│   ├── Throttled                          -32504
│   ├── StakeTooLow                        -32505
│   ├── UnsupportedAggregator              -32506
│   ├── BadSignature                       -32507
│   ├── PaymasterDepositTooLow             -32508   AA31, or the deposit is promised to other pending operations
│   └── ExecutionReverted                  -32521   during an estimate
└── OperationFailed               exit 7            included on chain, but reverted or was lost

Exit codes are stable and documented in docs/cli.md; JSON-RPC codes are ERC-7769's.
A message says what happened, with the values, and what to do next. Secrets never enter an exception.
"""

from __future__ import annotations

from typing import Any, ClassVar


class SeawallError(Exception):
    """Base of everything Seawall raises on purpose."""

    code: ClassVar[int] = -32603
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, rule: str | None = None, data: Any = None) -> None:
        super().__init__(message)
        self.message = message
        self.rule = rule
        self.data = data

    def to_rpc(self) -> dict[str, Any]:
        """The `error` member of a JSON-RPC answer."""
        error: dict[str, Any] = {"code": self.rpc_code, "message": self.message}
        data = self.data
        if self.rule is not None:
            data = {"rule": self.rule} | (data if isinstance(data, dict) else {} if data is None else {"detail": data})
        if data is not None:
            error["data"] = data
        return error

    @property
    def rpc_code(self) -> int:
        return self.code


class BadInput(SeawallError):
    """What the caller gave cannot be used; nothing was changed."""

    code = -32602
    exit_code = 2


class InvalidFields(BadInput):
    """A malformed JSON-RPC parameter or UserOperation field."""


class SetupError(SeawallError):
    """Something on this machine is missing or broken; the message says how to mend it."""

    exit_code = 3


class ArtifactError(SetupError):
    """A compiled artifact is missing or does not match its lock."""


class NodeError(SeawallError):
    """Talking to an Ethereum node, or to one of our own services, failed."""

    exit_code = 4


class NodeUnreachable(NodeError):
    """No answer at all: connection refused, timed out or broken off. Whether a request was carried out is unknown."""


class RpcError(NodeError):
    """The other side answered with a JSON-RPC error."""

    def __init__(self, rpc_code: int, message: str, data: Any = None, *, method: str = "") -> None:
        super().__init__(message, data=data)
        self._rpc_code = rpc_code
        self.method = method

    @property
    def rpc_code(self) -> int:
        return self._rpc_code

    def __str__(self) -> str:
        return f"{self.method or 'call'} failed: {self.message} (code {self._rpc_code})"


class Refused(SeawallError):
    """A policy or a budget said no."""

    exit_code = 5


class PolicyRefused(Refused):
    """The Decision denies. `data` is the Decision in its JSON form."""


class SponsorRefused(Refused):
    """The paymaster service will not pay for this operation."""

    code = -32500


class OperationRejected(SeawallError):
    """A UserOperation failed validation and was not accepted."""

    code = -32500
    exit_code = 6


class RejectedByEntryPoint(OperationRejected):
    """The sender or factory failed in the entry point (AA1x, AA2x)."""


class RejectedByPaymaster(OperationRejected):
    """The paymaster failed in the entry point (AA3x)."""

    code = -32501


class OpcodeRule(OperationRejected):
    """An ERC-7562 opcode, code or storage rule is broken."""

    code = -32502


class TimeRange(OperationRejected):
    """The operation is expired, not yet valid, or expires too soon (AA22, AA32; by block AA27, AA37)."""

    code = -32503


class Throttled(OperationRejected):
    """An entity of the operation is throttled or banned."""

    code = -32504


class StakeTooLow(OperationRejected):
    """An entity needs a larger stake or a longer unstake delay."""

    code = -32505


class UnsupportedAggregator(OperationRejected):
    """The sender names a signature aggregator; this bundler carries none."""

    code = -32506


class BadSignature(OperationRejected):
    """The sender or paymaster answered SIG_VALIDATION_FAILED (AA24, AA34)."""

    code = -32507


class PaymasterDepositTooLow(OperationRejected):
    """The paymaster's deposit does not cover the operation beside those it already promised to pay (AA31)."""

    code = -32508


class ExecutionReverted(OperationRejected):
    """The call itself reverts; found while estimating."""

    code = -32521


class OperationFailed(SeawallError):
    """The operation is on chain but its call reverted, or it was dropped for good."""

    exit_code = 7
