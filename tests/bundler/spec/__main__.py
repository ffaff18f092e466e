"""Run the public suite eth-infinitism/bundler-spec-tests against our bundler on a plain anvil.

    python -m tests.bundler.spec SUITE [pytest arguments]

SUITE is a checkout of the suite with its `@account-abstraction` and `spec` parts in place; PYTHON an interpreter with its
requirements. Between suite and node stands a small proxy: anvil answers `eth_sendRawTransaction` before the transaction is mined, the
suite expects it to be; the bundler itself talks to anvil directly. Prints what pytest prints and ends with its exit code.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
from aiohttp import web

from bundler.keys import KeyFile
from bundler.main import configure_logging, run
from bundler.settings import Settings
from contracts.devnet import anvil, packages
from contracts.devnet.accounts import FUNDS_WEI, Accounts, devnet_key
from contracts.devnet.chain import Builder
from contracts.devnet.entry_points import deploy_entry_points
from contracts.entrypoint import V07, V08, V09, EntryPoint
from contracts.eoa import Eoa
from contracts.rpc import RpcClient
from contracts.types import checksum, to_hex

CHAIN_ID = 1337
ENTRY_POINTS = {"v0.7": V07, "v0.8": V08, "v0.9": V09}


class HoldingProxy:
    """JSON-RPC between suite and node that answers for a transaction when its receipt exists."""

    def __init__(self, node: RpcClient) -> None:
        self._node = node
        self._session = aiohttp.ClientSession()
        self._app = web.Application(client_max_size=10**8)
        self._app.router.add_post("/", self._post)
        self._runner = web.AppRunner(self._app, access_log=None)
        self.url = ""

    async def start(self) -> None:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _post(self, request: web.Request) -> web.Response:
        body = await request.json()
        async with self._session.post(self._node.url, json=body) as response:
            answer = await response.json(content_type=None)
        if body.get("method") in ("eth_sendRawTransaction", "eth_sendTransaction") and "result" in answer:
            for _ in range(500):
                if await self._node.call("eth_getTransactionReceipt", answer["result"]) is not None:
                    break
                await asyncio.sleep(0.01)
        return web.json_response(answer)


def write_key(path: Path) -> Path:
    """The executor's key in a file that only we can read."""
    path.touch(mode=0o600)
    path.write_text(to_hex(devnet_key("executor")))
    return path


async def main(suite: Path, python: str, entry_point: EntryPoint, arguments: list[str]) -> int:
    """Start node, proxy and bundler, run the suite's pytest, return its exit code."""
    binary = await asyncio.to_thread(anvil.find_binary)
    wanted = [p for p in packages.protocol_packages() if p.name == "@account-abstraction/contracts"]
    await asyncio.to_thread(packages.fetch, wanted)
    start_s = int(time.time()) - 60
    options = ["--chain-id", str(CHAIN_ID), "--hardfork", "prague", "--gas-limit", "60000000", "--no-mining"]
    options += ["--timestamp", str(start_s)]
    with tempfile.TemporaryDirectory() as folder:
        key = write_key(Path(folder, "executor.key"))
        accounts = Accounts.derive()
        async with await anvil.Anvil.start(binary.path, options) as node, RpcClient(node.url) as rpc:
            executor = Eoa(devnet_key("executor"))
            for eoa in (*accounts.by_name().values(), executor):
                await rpc.call("anvil_setBalance", to_hex(eoa.address), hex(FUNDS_WEI))
            await deploy_entry_points(Builder(rpc, accounts, start_s))
            await rpc.call("evm_setAutomine", True)
            settings = Settings(
                rpc_url=node.url,
                executor_key=KeyFile(key),
                database=Path(folder, "bundler.sqlite"),
                entry_points=(entry_point,),
                port=0,
                debug=True,
                min_stake_wei=10**17,
                min_unstake_delay_s=2,
            )
            stopping, listening = asyncio.Event(), asyncio.get_running_loop().create_future()
            configure_logging("text")
            bundler = asyncio.create_task(run(settings, stopping=stopping, listening=listening.set_result))
            done, _ = await asyncio.wait({bundler, listening}, return_when=asyncio.FIRST_COMPLETED)
            if bundler in done:
                await bundler
            proxy = HoldingProxy(rpc)
            await proxy.start()
            process = await asyncio.create_subprocess_exec(
                python, "-m", "pytest", "-q", "--tb=short", "-W", "ignore", "-p", "no:cacheprovider",
                "--url", listening.result(), "--entry-point", checksum(entry_point.address), "--ethereum-node", proxy.url,
                *(arguments or ["tests/single"]), cwd=suite,
            )  # fmt: skip
            code = await process.wait()
            await proxy.stop()
            stopping.set()
            await bundler
            return code


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.bundler.spec")
    parser.add_argument("suite", type=Path)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--entry-point", choices=sorted(ENTRY_POINTS), default="v0.8")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="for pytest")
    given = parser.parse_args()
    sys.exit(
        asyncio.run(
            main(given.suite, given.python, ENTRY_POINTS[given.entry_point], [a for a in given.arguments if a != "--"])
        )
    )
