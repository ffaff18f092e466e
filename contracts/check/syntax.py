"""The syntax trees of our sources, as the pinned compiler gives them: parsed and typed, without generating code."""

from __future__ import annotations

from typing import Any

from contracts.compile import Compiler, find_compiler, node_modules, settings, sources
from contracts.errors import SetupError


def analyse(
    texts: dict[str, str] | None = None, compiler: Compiler | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Request and answer of the compiler (standard JSON) with `ast`, `abi` and method identifiers of every source that ours reach.

    `texts` are sources by name, ours by default. Raises SetupError when they do not compile.
    """
    import solcx
    from solcx.exceptions import SolcError

    pinned = settings()
    base = str(node_modules().parent)
    request = {
        "language": "Solidity",
        "sources": {name: {"content": text} for name, text in (texts or sources()).items()},
        "settings": {
            "evmVersion": pinned["evmVersion"],
            "viaIR": pinned["viaIR"],
            "optimizer": {"enabled": pinned["optimizer"], "runs": pinned["optimizerRuns"]},
            "metadata": pinned["metadata"],
            "remappings": pinned["remappings"],
            "outputSelection": {"*": {"": ["ast"], "*": ["abi", "evm.methodIdentifiers"]}},
        },
    }
    binary = (compiler or find_compiler()).binary
    try:
        answer: dict[str, Any] = solcx.compile_standard(request, solc_binary=binary, base_path=base, allow_paths=[base])
    except SolcError as error:
        raise SetupError(f"solc refused the sources:\n{str(error.stdout_data)[-4000:]}") from error
    return request, answer
