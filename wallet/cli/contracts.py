"""`seawall contracts`: from Solidity to the artifacts that ship."""

from __future__ import annotations

from typing import Annotated

import typer

from contracts.errors import BadInput
from wallet.cli.output import AsJson, emit, say

app = typer.Typer(no_args_is_help=True, help="Compile the Solidity sources, or check the shipped artifacts.")


@app.command()
def build(
    solc: Annotated[str | None, typer.Option(help="Force the compiler: native or soljson.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compile all sources and write artifacts and lock."""
    from contracts import compile as compiling

    if solc not in (None, "native", "soljson"):
        raise BadInput(f"--solc must be native or soljson, got {solc!r}")
    compiler = compiling.find_compiler(prefer=solc)
    version = compiling.settings()["version"]
    say(f"compiling with solc {version} ({compiler.kind}) ...")
    names = compiling.build(compiler)
    emit(
        {"compiler": {"kind": compiler.kind, "version": version, "binary": str(compiler.binary)}, "contracts": names},
        as_json,
        lambda console: console.print("\n".join(names)),
    )


@app.command()
def check(
    recompile: Annotated[bool, typer.Option(help="Compile again and compare the bytecode too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare the sources with the lock of the shipped artifacts."""
    from contracts import compile as compiling
    from contracts.artifacts import artifact
    from contracts.errors import ArtifactError

    compiling.check_sources()
    compared: list[str] = []
    if recompile:
        for name, fresh in sorted(compiling.compile_contracts(compiling.find_compiler()).items()):
            if artifact(name).bytecode != bytes.fromhex(fresh["bytecode"][2:]):
                raise ArtifactError(
                    f"{name} compiles to other bytecode than its artifact: run `seawall contracts build`"
                )
            compared.append(name)
    emit(
        {"ok": True, "recompiled": compared},
        as_json,
        lambda console: console.print(
            "sources match their lock"
            + (f"; {len(compared)} contracts compile to the shipped bytecode" if recompile else "")
        ),
    )


@app.command("test", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def forge_test(ctx: typer.Context) -> None:
    """Run the Solidity tests with forge, offline. Further arguments go to `forge test`."""
    from contracts.forge import run

    raise typer.Exit(run(["test", *ctx.args]))


@app.command("fmt")
def forge_fmt(
    check: Annotated[bool, typer.Option("--check", help="Change nothing; exit 1 if something would change.")] = False,
) -> None:
    """Format the Solidity sources and tests with forge."""
    from contracts.forge import run

    raise typer.Exit(run(["fmt", *(["--check"] if check else []), "contracts/src", "contracts/test"]))
