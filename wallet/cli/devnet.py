"""`seawall devnet`: the real venues and our contracts on a local chain, until interrupted."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contracts.errors import BadInput
from wallet.cli.output import AsJson, emit, say, table

if TYPE_CHECKING:
    from rich.console import Console

    from contracts.devnet import Devnet

app = typer.Typer(help="Start the devnet: anvil with the real venues and our contracts.")

_HEARTBEAT_S = 120.0
"""How often the feeds repeat their answers, so that none grows stale under a policy that wants fresh prices."""


@app.command()
def devnet(
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Where the node listens; 0 takes a free port.")] = 8545,
    price: Annotated[str, typer.Option(help="ETH in USDC, such as 181.45.")] = "3000",
    timestamp: Annotated[
        int | None, typer.Option(help="Unix second of the first bar of a replay; default: the clock.")
    ] = None,
    deployments: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write what --json prints there, for `deployments = FILE`.")
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write the accounts' keys there. They are public: never use them elsewhere."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Start, print every address, and run until interrupted."""
    from contracts.units import WAD, to_units

    price_wad = to_units(price, 18, "--price")
    if price_wad < WAD // 100:
        raise BadInput(f"--price must be a price in USDC, got {price}")
    asyncio.run(_run(port, price_wad, timestamp, deployments, keys, as_json))


async def _run(
    port: int, price_wad: int, timestamp: int | None, deployments: Path | None, keys: Path | None, as_json: bool
) -> None:
    from contracts.devnet import Devnet

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    say("starting the devnet; the first time takes a while, afterwards it comes from the cache ...")
    async with Devnet.start(port=port, price_wad=price_wad, timestamp=timestamp) as net:
        data = describe(net)
        if deployments is not None:
            partial = deployments.with_name(f".{deployments.name}.{os.getpid()}")
            partial.write_text(json.dumps(data, indent=1) + "\n")
            partial.replace(deployments)
        if keys is not None:
            _write_keys(net, keys)
        emit(data, as_json, lambda console: _show(console, data))
        say("running; interrupt with Ctrl-C")
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_HEARTBEAT_S):
                    await stop.wait()
            if not stop.is_set() and timestamp is None:
                await net.market.heartbeat()


def describe(net: Devnet) -> dict[str, Any]:
    """What `--json` prints and a profile's `deployments` reads."""
    from contracts.types import checksum

    return {
        "rpc_url": net.rpc_url,
        "chain_id": net.chain_id,
        "warm": net.warm,
        "addresses": net.addresses.to_json(),
        "accounts": {name: checksum(eoa.address) for name, eoa in net.accounts.by_name().items()},
    }


def _write_keys(net: Devnet, directory: Path) -> None:
    from contracts.devnet import devnet_key

    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in net.accounts.by_name():
        path = directory / f"{name}.key"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(f"0x{devnet_key(name).hex()}\n")


def _show(console: Console, data: dict[str, Any]) -> None:
    console.print(f"{data['rpc_url']}  chain {data['chain_id']}")
    table(console, ["contract", "address"], data["addresses"].items())
    table(console, ["account", "address"], data["accounts"].items())
