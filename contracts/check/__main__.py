"""Every check of the contracts, and one summary: `python -m contracts.check [--short] [STEP ...]`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

from contracts.check import halmos, slither, solidity
from contracts.check.result import Result, summary
from contracts.errors import SeawallError


def steps(*, short: bool) -> dict[str, Callable[[], Result]]:
    """The checks by name, in the order in which they run: what is quick to fail comes first."""
    return {
        "slither": slither.check,
        "halmos": halmos.check,
        "tests": lambda: solidity.tests(short=short),
        "coverage": solidity.coverage,
    }


def main() -> int:
    """Run the named steps, or all. Returns 0 when every one passed."""
    parser = argparse.ArgumentParser(prog="python -m contracts.check", description=__doc__)
    parser.add_argument("--short", action="store_true", help="as many fuzz runs as an ordinary test run")
    parser.add_argument("step", nargs="*", help="which checks (default: all)")
    arguments = parser.parse_args()
    known = steps(short=arguments.short)
    if unknown := [step for step in arguments.step if step not in known]:
        parser.error(f"unknown step {unknown[0]}; there are {', '.join(known)}")
    results, seconds = [], []
    for name in arguments.step or known:
        print(f"{name} ...", file=sys.stderr, flush=True)
        began = time.monotonic()
        try:
            result = known[name]()
        except SeawallError as error:
            result = Result(name, False, "did not run", (str(error),))
        results.append(result)
        seconds.append(time.monotonic() - began)
    print(summary(results, seconds))
    return 0 if all(result.passed for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
