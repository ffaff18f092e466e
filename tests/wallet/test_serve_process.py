"""`seawall policy serve` as its operator runs it: keys and token from files, a trader elsewhere, kill -9 at the worst moments."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from contracts.types import checksum
from contracts.userop import UserOperation
from policies.attestation import encode_attested_envelope
from tests.wallet.cli_rig import PASSPHRASE, ROOT, Machine
from tests.wallet.keeper_rig import free_port
from tests.wallet.trading_floor import Floor, Trader, floor_in
from wallet.account import suggest_fees
from wallet.audit import AuditLog
from wallet.audit_verify import verify


@pytest.fixture(scope="module")
async def floor(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Floor]:
    async with floor_in(tmp_path_factory.mktemp("floor")) as found:
        yield found


@pytest.fixture
def machine(floor: Floor, tmp_path: Path) -> Machine:
    return Machine.set_up(floor, tmp_path)


@dataclass(slots=True)
class Running:
    """The service as a process, and a client of it."""

    process: asyncio.subprocess.Process
    url: str
    token: str

    async def attest(self, op: UserOperation) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {self.token}"}
        async with (
            aiohttp.ClientSession() as http,
            http.post(self.url + "/v1/attestations", json={"userOp": op.to_rpc()}, headers=headers) as answer,
        ):
            return answer.status, await answer.json()

    async def stop(self) -> int:
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            return await self.process.wait()


@contextlib.asynccontextmanager
async def running(machine: Machine, *flags: str, crash_at: str = "") -> AsyncIterator[Running]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SEAWALL_", "XDG_"))}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "wallet.cli", "policy", "serve", "--port", "0", *flags,
        cwd=machine.folder,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=clean
        | {
            "PYTHONPATH": str(ROOT),
            "XDG_DATA_HOME": str(machine.folder / "data"),
            "XDG_CONFIG_HOME": str(machine.folder / "config"),
            "SEAWALL_PASSPHRASE_FILE": str(machine.folder / "phrase"),
            "SEAWALL_CRASH_AT": crash_at,
        },
    )  # fmt: skip
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            line = await process.stdout.readline()
        assert line, "it ended before it listened"
        token = (machine.folder / "data/seawall/policy-service.token").read_text().strip()
        yield Running(process, json.loads(line)["url"], token)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def final_operation(trader: Trader) -> UserOperation:
    """What the trader's own software makes: an opening with its gas limits, not signed by anybody."""
    max_fee, tip = await suggest_fees(trader.net.rpc)
    draft = await trader.signer.account.draft(await trader.opening("2"), max_fee_wei=max_fee, priority_fee_wei=tip)
    estimated = await trader.signer.bundler.estimate(draft)
    return estimated.replace(call_gas_limit=estimated.call_gas_limit * 3 // 2)


def log_of(machine: Machine, trader: Trader) -> AuditLog:
    name = f"{trader.net.chain_id}-{checksum(trader.address)}.db"
    return AuditLog(machine.folder / "data/seawall/engine" / name)


def kinds(machine: Machine, trader: Trader) -> list[str]:
    return [entry.kind for entry in log_of(machine, trader).entries()]


async def test_a_trader_elsewhere_signs_beside_the_engine_and_the_chain_takes_it(
    machine: Machine, floor: Floor, tmp_path: Path
) -> None:
    trader = await floor.trader(tmp_path, sponsored=False)
    op = await final_operation(trader)
    async with running(machine) as service:
        status, given = await service.attest(op)
        assert status == 200, given
        owner = trader.signer.owner
        assert owner is not None
        signed = trader.signer.account.sign(op, owner)
        envelope = encode_attested_envelope(signed, [bytes.fromhex(given["attestation"][2:])])
        sent = await trader.signer.bundler.send(op.replace(signature=envelope))
        assert (await trader.signer.bundler.wait(sent)).success
        assert await service.stop() == 0
    token = machine.folder / "data/seawall/policy-service.token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert verify(log_of(machine, trader)).sound


@pytest.mark.parametrize(
    ("crash_at", "recorded"),
    [("engine.record.after", ["decision", "attestation"]), ("engine.record.commit", ["decision"])],
    ids=["after recording, before answering", "before recording"],
)
async def test_killed_at_the_worst_moment_it_answers_the_same_request_after_a_restart(
    machine: Machine, floor: Floor, tmp_path: Path, crash_at: str, recorded: list[str]
) -> None:
    trader = await floor.trader(tmp_path, sponsored=False, salt=crash_at)
    op = await final_operation(trader)
    async with running(machine, crash_at=crash_at) as service:
        with pytest.raises(aiohttp.ClientError):
            await service.attest(op)
        assert await service.stop() != 0
    assert kinds(machine, trader) == recorded
    async with running(machine) as service:
        status, given = await service.attest(op)
        assert status == 200, given
        assert await service.attest(op) == (200, given)
    assert kinds(machine, trader) == ["decision", "attestation"]
    assert verify(log_of(machine, trader)).sound


async def test_without_a_key_it_starts_with_judge_only_and_asks_for_no_passphrase(machine: Machine) -> None:
    (machine.folder / "phrase").unlink()
    async with running(machine, "--judge-only") as service:
        async with aiohttp.ClientSession() as http, http.get(service.url + "/ready") as answer:
            found = await answer.json()
        assert found["engine"] is None
        # The backend that prices options is there before the first question.
        assert found["pricing"] == ("numpy" if importlib.util.find_spec("numba") is None else "numba")
        assert await service.stop() == 0


@pytest.mark.parametrize(
    ("env", "code", "words"),
    [
        ({"SEAWALL_CHAIN_ID": "1"}, 2, "is on chain"),
        ({"SEAWALL_RPC_URL": f"http://127.0.0.1:{free_port()}"}, 4, ""),
        ({"SEAWALL_KEYS_ENGINE": "nobody"}, 2, "no key is named 'nobody'"),
        ({"SEAWALL_READ_ONLY": "true"}, 2, "read-only"),
        ({"SEAWALL_POLICY": "nowhere.yaml"}, 3, "nowhere.yaml"),
    ],
)
async def test_what_cannot_work_is_said_before_it_listens(
    machine: Machine, env: dict[str, str], code: int, words: str
) -> None:
    answer = await machine.run("policy", "serve", "--port", "0", env=env)
    assert answer.code == code, answer.err
    assert words in answer.err
    assert "listening" not in answer.out


async def test_a_token_that_others_can_read_is_not_used(machine: Machine) -> None:
    token = machine.folder / "token"
    token.write_text("a token of quite some length")
    token.chmod(0o644)
    answer = await machine.run("policy", "serve", "--port", "0", "--token-file", "token")
    assert answer.code == 3
    assert "can be read by others" in answer.err
    assert PASSPHRASE not in answer.err
