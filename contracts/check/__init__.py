"""What stands behind `make contracts-check`: every check of the contracts that is more than a unit test, and one summary of all.

    syntax     the compiler's syntax tree, without code generation (seconds instead of minutes)
    solidity   forge: unit, fuzz and invariant tests; branch coverage
    halmos     symbolic proofs of the state machine and of the spending windows' arithmetic
    slither    static analysis, each finding explained in slither.toml or a failure

A developer's tool: it is not part of the wheel.
"""
