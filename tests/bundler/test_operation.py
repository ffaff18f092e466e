"""What an operator has of a bundler: metrics, readiness, commands with a token, settings read again, limits on clients, the doctor."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import socket
import sqlite3
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from bundler.admin import ask
from bundler.doctor import examine
from bundler.events import Event, Events, Kind
from bundler.keys import KeyFile
from bundler.limits import Clients, RateLimit, UnknownKey, is_deeper_than, parse_api_keys
from bundler.settings import HOT, LiveSettings, Settings
from contracts.devnet.accounts import devnet_key
from contracts.entrypoint import V08
from contracts.errors import BadInput, NodeUnreachable, RpcError, SetupError
from contracts.types import Address, checksum, to_hex
from tests.bundler.rig import ROOT, Chain, Client, process, serving, settings_for, until
from tests.chaos.fault_proxy import FaultProxy

TOKEN = "a token of an operator"


@pytest.fixture(scope="module")
async def chain(chain_state: tuple[Path, dict[str, Address]]) -> AsyncIterator[Chain]:
    """A chain for this file: one bundler at a time works on it."""
    async with Chain.start(*chain_state) as found:
        yield found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.asynccontextmanager
async def operated(chain: Chain, folder: Path, **changes: Any) -> AsyncIterator[tuple[Client, str]]:
    """A bundler with an admin address; yields a client and that address."""
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(TOKEN)
    given = {"admin_port": free_port(), "admin_token_file": token} | changes
    settings = settings_for(chain, folder, **given)
    async with serving(settings) as client:
        yield client, f"http://127.0.0.1:{settings.admin_port}"


async def scraped(admin: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    async with aiohttp.ClientSession() as session, session.get(f"{admin}/metrics") as response:
        text = await response.text()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_metrics_follow_an_operation_to_its_block(chain: Chain, tmp_path: Path) -> None:
    async with operated(chain, tmp_path) as (client, admin):
        account = await chain.account()
        op_hash = await client.send(await account.operation())
        await client.included(op_hash)
        with pytest.raises(RpcError, match="AA2"):
            await client.send(replace(await account.operation(), signature=b"\x01" * 65))
        await client.settled()
        found = await scraped(admin)
        for turn, way, count in (("first", "full", 1), ("first", "refused", 1)):
            labels = (("turn", turn), ("way", way))
            assert found["seawall_bundler_simulation_seconds_count", labels] == count
        receipt = (await client.receipt(op_hash) or {})["receipt"]
        cost_wei = int(receipt["gasUsed"], 16) * int(receipt["effectiveGasPrice"], 16)
        event = (await chain.receipts_of(V08, op_hash))[0]
        assert found["seawall_bundler_cost_wei_total", ()] == cost_wei
        assert found["seawall_bundler_revenue_wei_total", ()] == int(event["data"][2 + 2 * 64 : 2 + 3 * 64], 16)
        assert found["seawall_bundler_bundle_gas_sum", ()] == int(receipt["gasUsed"], 16)
        assert found["seawall_bundler_pool_bytes", ()] == 0
        assert found["seawall_bundler_operations_total", (("outcome", "accepted"), ("reason", ""))] == 1
        assert found["seawall_bundler_operations_total", (("outcome", "included"), ("reason", ""))] == 1
        assert found["seawall_bundler_operations_total", (("outcome", "refused"), ("reason", "AA23"))] == 1
        assert found["seawall_bundler_bundles_total", (("outcome", "sent"),)] == 1
        assert found["seawall_bundler_bundles_total", (("outcome", "included"),)] == 1
        assert found["seawall_bundler_validation_seconds_count", (("outcome", "accepted"),)] == 1
        assert found["seawall_bundler_inclusion_seconds_count", ()] == 1
        assert found["seawall_bundler_bundle_operations_sum", ()] == 1
        assert found["seawall_bundler_pool_operations", (("state", "waiting"),)] == 0
        assert found["seawall_bundler_ready", ()] == 1
        assert found["seawall_bundler_head_block", ()] == await chain.rpc.block_number()
        assert any(name == "seawall_bundler_executor_balance_wei" and value > 0 for (name, _), value in found.items())
        requests = ("seawall_bundler_request_seconds_count", (("method", "eth_sendUserOperation"), ("outcome", "ok")))
        assert found[requests] == 1
        traced = ("debug_traceCall", "batch")  # alone or among others
        node = [
            found.get(("seawall_bundler_node_seconds_count", (("method", m), ("outcome", "ok"))), 0) for m in traced
        ]
        assert sum(node) >= 1


async def test_commands_need_the_token_and_say_what_is_wrong(chain: Chain, tmp_path: Path) -> None:
    async with operated(chain, tmp_path) as (client, admin):
        await until(lambda: _is_ready(client), "it is ready")
        assert (await ask(admin, "status", None, None))["ready"]
        for token in (None, "another token entirely"):
            with pytest.raises(BadInput, match="token is missing or wrong"):
                await ask(admin, "pause", None, token)
        with pytest.raises(BadInput, match="there is no 'explode'"):
            await ask(admin, "explode", None, TOKEN)
        with pytest.raises(BadInput, match="needs an argument"):
            await ask(admin, "drop", None, TOKEN)
        with pytest.raises(BadInput, match="is not in the pool"):
            await ask(admin, "drop", "0x" + "11" * 32, TOKEN)
        with pytest.raises(BadInput, match="came from no file"):
            await ask(admin, "reload", None, TOKEN)
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"}) as session:
            async with session.post(f"{admin}/explode") as response:
                assert response.status == 404
            async with session.post(f"{admin}/ban", data=b"[") as response:
                assert response.status == 400
    with pytest.raises(NodeUnreachable, match="Is admin_port set"):
        await ask("http://127.0.0.1:9", "status", None, None)


async def test_without_a_token_file_there_are_metrics_only(chain: Chain, tmp_path: Path) -> None:
    async with operated(chain, tmp_path, admin_token_file=None) as (_, admin):
        assert await scraped(admin)
        with pytest.raises(BadInput, match="no token is set"):
            await ask(admin, "pause", None, TOKEN)
    settings = settings_for(chain, tmp_path)
    assert settings.admin_token() is None
    short = tmp_path / "short"
    short.write_text("abc")
    short.chmod(0o600)
    with pytest.raises(BadInput, match="at least 16"):
        replace(settings, admin_token_file=short).admin_token()
    short.chmod(0o644)
    with pytest.raises(SetupError, match="can be read by others"):
        replace(settings, admin_token_file=short).admin_token()


async def test_paused_it_accepts_and_sends_nothing_and_says_so(chain: Chain, tmp_path: Path) -> None:
    async with operated(chain, tmp_path) as (client, admin):
        await ask(admin, "pause", None, TOKEN)
        account = await chain.account()
        op_hash = await client.send(await account.operation())
        status = await client.service()
        size = (await scraped(admin))["seawall_bundler_pool_bytes", ()]
        assert size > 400  # its calldata, signature and factory data at least
        assert not status["ready"]
        assert status["problems"] == ["paused by the operator: no bundles are sent"]
        async with aiohttp.ClientSession() as session, session.get(f"{client.rpc.url}/ready") as response:
            assert response.status == 503
        assert (await client.status(op_hash) or {})["status"] == "received"
        await ask(admin, "resume", None, TOKEN)
        await client.included(op_hash)


async def test_draining_it_sends_what_it_has_and_takes_no_more(chain: Chain, tmp_path: Path) -> None:
    async with operated(chain, tmp_path) as (client, admin):
        await ask(admin, "pause", None, TOKEN)
        account = await chain.account()
        op_hash = await client.send(await account.operation())
        await ask(admin, "drain", None, TOKEN)
        other = await chain.account()
        with pytest.raises(RpcError, match="takes no new operations"):
            await client.send(await other.operation())
        assert (await ask(admin, "flush", None, TOKEN)) == [to_hex(op_hash)]
        await client.included(op_hash)
        await ask(admin, "resume", None, TOKEN)
        await client.included(await client.send(await other.operation()))


async def test_an_operation_is_dropped_and_an_entity_banned_and_forgiven(chain: Chain, tmp_path: Path) -> None:
    async with operated(chain, tmp_path) as (client, admin):
        await ask(admin, "pause", None, TOKEN)
        account, other = await chain.account(), await chain.account()
        first = await client.send(await account.operation())
        assert "is dropped" in await ask(admin, "drop", to_hex(first), TOKEN)
        assert (await client.status(first) or {})["reason"] == "the operator dropped it"
        second = await client.send(await other.operation())
        banned = await ask(admin, "ban", checksum(other.address), TOKEN)
        assert banned["dropped"] == [to_hex(second)]
        with pytest.raises(RpcError, match="banned"):
            await client.send(await other.operation())
        await ask(admin, "unban", checksum(other.address), TOKEN)
        await ask(admin, "resume", None, TOKEN)
        await client.included(await client.send(await other.operation()))


async def test_not_ready_without_money_or_with_an_old_head(
    chain: Chain, chain_state: tuple[Path, dict[str, Address]], tmp_path: Path
) -> None:
    async with operated(chain, tmp_path, min_executor_balance_wei=10**30) as (client, _):
        await until(lambda: _problem(client, "holds"), "the balance is a problem")
    async with Chain.start(*chain_state) as public:
        await public.rpc.call("anvil_setChainId", 10)
        own = tmp_path / "public"
        own.mkdir()
        settings = settings_for(public, own, fee_model="l1")
        async with serving(settings) as client:
            await until(lambda: _problem(client, "s old, at most 300"), "the age is a problem")
        async with serving(replace(settings, max_head_age_s=0.0)) as client:
            await until(lambda: _is_ready(client), "any age will do")


async def _is_ready(client: Client) -> bool:
    return bool((await client.service())["ready"])


async def _problem(client: Client, words: str) -> bool:
    return any(words in problem for problem in (await client.service())["problems"])


async def test_a_client_over_its_rate_is_told_when_to_come_back(chain: Chain, tmp_path: Path) -> None:
    async with operated(chain, tmp_path, rate_limit_per_s=0.001, rate_limit_burst=3) as (client, admin):
        body = {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": []}
        async with aiohttp.ClientSession() as session:
            for _ in range(2):
                async with session.post(client.rpc.url, json=body) as response:
                    assert response.status == 200
            async with session.post(client.rpc.url, json=[body, body]) as response:
                assert response.status == 429
                assert int(response.headers["Retry-After"]) > 100
                assert (await response.json())["error"]["code"] == -32005
            async with session.get(f"{client.rpc.url}/health") as response:
                assert response.status == 200
        assert (await scraped(admin))["seawall_bundler_rate_limited_total", ()] == 2


async def test_a_request_that_nests_too_deep_is_refused(chain: Chain, tmp_path: Path) -> None:
    async with operated(chain, tmp_path, max_json_depth=5) as (client, _), aiohttp.ClientSession() as session:
        deep = b'{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":[[[[[]]]]]}'
        async with session.post(client.rpc.url, data=deep) as response:
            assert "nests deeper than 5" in (await response.json())["error"]["message"]


def test_the_bucket_fills_with_time_and_quiet_clients_are_forgotten() -> None:
    now = [0.0]
    limit = RateLimit(2.0, 4, lambda: now[0])
    assert [limit.wait_s("a") for _ in range(5)] == [0, 0, 0, 0, 0.5]
    assert limit.wait_s("b", 100) == 0  # a batch larger than any burst empties it, and is not refused for ever
    assert limit.wait_s("b") == 0.5
    now[0] = 0.5
    assert limit.wait_s("a") == 0
    assert len(limit) == 2
    now[0] = 10.0
    assert limit.wait_s("c") == 0
    assert len(limit) == 1
    assert RateLimit(0, 1).wait_s("a", 10**6) == 0


@pytest.mark.parametrize(
    ("body", "most", "deeper"),
    [
        (b"[[]]", 1, True),
        (b"[[]]", 2, False),
        (b'{"a":{"b":[]}}', 2, True),
        (b'["[[[[[[", "\\"[[[["]', 1, False),
        (b"[" * 1000, 999, True),
        (b"[],[],[]", 1, False),
    ],
)
def test_depth_is_counted_outside_of_texts(body: bytes, most: int, deeper: bool) -> None:
    assert is_deeper_than(body, most) is deeper


def test_limits_change_while_it_runs_and_the_rest_does_not(tmp_path: Path) -> None:
    base = Settings.from_mapping({"rpc_url": "http://127.0.0.1:1", "key_env": "K", "database": str(tmp_path / "x")})
    live = LiveSettings(base)
    changed = live.change_to(replace(base, max_pool_ops=7, min_priority_fee_wei=5))
    assert sorted(changed) == ["max_pool_ops", "min_priority_fee_wei"]
    assert live.max_pool_ops == 7
    with pytest.raises(BadInput, match="port cannot change while the bundler runs"):
        live.change_to(replace(live.now, port=1, max_pool_ops=9))
    assert live.max_pool_ops == 7
    assert {"rpc_url", "database", "executor_key", "entry_points", "port", "safe"}.isdisjoint(HOT)


async def test_a_hangup_reads_the_settings_again_and_a_bad_file_changes_nothing(chain: Chain, tmp_path: Path) -> None:
    settings, config = settings_for(chain, tmp_path), tmp_path / "bundler.toml"
    assert isinstance(settings.executor_key, KeyFile)
    fixed = (
        f'[bundler]\nrpc_url = "{settings.rpc_url}"\nkey_file = "{settings.executor_key.path}"\n'
        f'database = "{settings.database}"\nport = 0\n'
    )
    config.write_text(fixed)
    with (tmp_path / "log").open("w+b") as log:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "bundler",
            "--config",
            str(config),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
        )
        try:
            assert child.stdout is not None
            url = json.loads(await asyncio.wait_for(child.stdout.readline(), 20))["url"]

            async def logged(words: str) -> bool:
                return words in (tmp_path / "log").read_text()

            async def refused(body: bytes) -> bool:
                async with aiohttp.ClientSession() as session, session.post(url, data=body) as response:
                    return "error" in await response.json()

            two = b'[{"jsonrpc":"2.0","id":1,"method":"eth_chainId"},{"jsonrpc":"2.0","id":2,"method":"eth_chainId"}]'
            assert not await refused(two)
            config.write_text(fixed + "max_batch = 1\n")
            child.send_signal(signal.SIGHUP)
            await until(lambda: logged("changed: max_batch"), "the settings are read again")
            assert await refused(two)
            for bad, words in (
                ("max_batch = 0\n", "max_batch must be at least 1"),
                ("debug = true\n", "debug cannot change"),
            ):
                config.write_text(fixed + bad)
                child.send_signal(signal.SIGHUP)
                await until(partial(logged, words), "the log says why not")
            assert await refused(two)
        finally:
            child.terminate()
            await child.wait()


def test_a_listener_that_fails_harms_nobody() -> None:
    heard: list[Kind] = []

    def bad(_: Event) -> None:
        raise RuntimeError("no")

    events = Events([bad, lambda event: heard.append(event.kind)])
    events.tell(Event(Kind.SENT))
    assert heard == [Kind.SENT]


# -- the doctor ------------------------------------------------------------------------------------------------------------------------


async def examined(settings: Settings) -> dict[str, tuple[str, str]]:
    return {finding.what: (finding.level, finding.text) for finding in await examine(settings)}


async def test_the_doctor_finds_nothing_wrong_where_a_bundler_works(chain: Chain, tmp_path: Path) -> None:
    found = await examined(settings_for(chain, tmp_path))
    assert {level for level, _ in found.values()} == {"ok"}, found
    assert "cheap pass first" in found["safe mode"][1]
    assert {"node", "entry point", "tracer", "fee model", "executor's key", "executor's money", "database"} <= set(
        found
    )


async def test_the_doctor_names_what_is_wrong(chain: Chain, tmp_path: Path) -> None:
    settings = settings_for(chain, tmp_path)
    away = await examined(replace(settings, rpc_url="http://127.0.0.1:9"))
    assert away["node"][0] == "failed"
    keyless = await examined(replace(settings, executor_key=KeyFile(tmp_path / "nothing")))
    assert keyless["executor's key"][0] == "failed"
    assert "executor's money" not in keyless
    damaged = tmp_path / "damaged.sqlite"
    damaged.write_bytes(b"no database at all, and long enough to be looked at" * 100)
    assert (await examined(replace(settings, database=damaged)))["database"][0] == "failed"
    poor = await examined(replace(settings, min_executor_balance_wei=10**30))
    assert poor["executor's money"][0] == "failed"
    exposed = await examined(replace(settings, host="0.0.0.0", debug=True))  # noqa: S104
    assert exposed["exposure"][0] == "failed"
    lane = tmp_path / "lane.key"
    lane.touch(mode=0o600)
    lane.write_text(devnet_key("a lane without money").hex())
    lanes = await examine(replace(settings, lane_key_files=(lane,)))
    assert [one.level for one in lanes if one.what == "executor's money"] == ["ok", "failed"]
    assert isinstance(settings.executor_key, KeyFile)
    twice = await examined(replace(settings, lane_key_files=(settings.executor_key.path,)))
    assert twice["executor's key"][0] == "failed"
    slow = await examined(replace(settings, cheap_pass=False))
    assert slow["safe mode"] == ("ok", "full traces only: cheap_pass = false")
    loose = keys_file(tmp_path)
    loose.chmod(0o644)
    assert (await examined(replace(settings, api_keys_file=loose)))["clients' keys"][0] == "failed"
    assert (await examined(replace(settings, safe=False)))["rules"][0] == "warning"


# -- what is shipped for operators -------------------------------------------------------------------------------------------------------


async def test_the_dashboard_draws_what_is_exported_and_every_metric_and_setting_is_documented(
    chain: Chain, tmp_path: Path
) -> None:
    async with operated(chain, tmp_path) as (client, admin):
        await client.included(await client.send(await (await chain.account()).operation()))
        async with aiohttp.ClientSession() as session, session.get(f"{admin}/metrics") as response:
            families = {family.name for family in text_string_to_metric_families(await response.text())}
    dashboard = json.loads((ROOT / "docs/deploy/grafana-bundler.json").read_text())
    drawn = set[str]()
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            names = re.findall(r"seawall_bundler_\w+", target["expr"])
            assert names, target
            drawn |= {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in names}
    assert drawn == families
    document = (ROOT / "docs/bundler.md").read_text()
    assert [name for name in sorted(families) if f"`{name}" not in document] == []
    assert [name for name in Settings.__dataclass_fields__ if f"`{name}`" not in document] == []


def test_the_unit_and_the_container_name_flags_that_exist() -> None:
    from typer.main import get_command

    from wallet.cli.services import bundler

    commands = get_command(bundler).commands  # type: ignore[attr-defined]
    for text in (
        (ROOT / "docs/deploy/seawall-bundler.service").read_text(),
        (ROOT / "docs/deploy/seawall-bundler@.service").read_text(),
        (ROOT / "docs/deploy/Containerfile").read_text(),
    ):
        for command in ("run", "doctor"):
            known = {option for parameter in commands[command].params for option in parameter.opts}
            for line in text.splitlines():
                if f'bundler {command} "' in line.replace('", "', " ") or f"bundler {command} " in line:
                    assert set(re.findall(r"--[a-z][a-z-]+", line.partition("bundler")[2])) <= known, line


# -- clients with keys -----------------------------------------------------------------------------------------------------------------

KEYS = """
[desk]
key = "the desk's key, long"
rate_per_s = 0.001
burst = 2

[trusted]
key = "nobody limits this one"
"""
CHAIN_ID_REQUEST = {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": []}


def keys_file(folder: Path, text: str = KEYS) -> Path:
    path = folder / "keys.toml"
    path.touch(mode=0o600)
    path.write_text(text)
    return path


async def posted(url: str, **options: Any) -> tuple[int, dict[str, Any]]:
    async with aiohttp.ClientSession() as session, session.post(url, json=CHAIN_ID_REQUEST, **options) as response:
        return response.status, await response.json()


async def test_a_client_with_a_key_has_a_rate_of_its_own_whatever_others_do(chain: Chain, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"api_keys_file": keys_file(tmp_path), "rate_limit_per_s": 0.001, "rate_limit_burst": 1}
    async with operated(chain, tmp_path, **changes) as (client, _):
        url, desk = client.rpc.url, "the desk's key, long"
        assert [(await posted(url))[0] for _ in range(2)] == [200, 429]
        ways: list[dict[str, Any]] = [
            {"headers": {"X-Api-Key": desk}},
            {"headers": {"Authorization": f"Bearer {desk}"}},
            {"params": {"apikey": desk}},
        ]
        assert [(await posted(url, **way))[0] for way in ways] == [200, 200, 429]
        trusted = {"X-Api-Key": "nobody limits this one"}
        assert {(await posted(url, headers=trusted))[0] for _ in range(5)} == {200}


async def test_where_a_key_is_asked_for_nobody_is_answered_without(chain: Chain, tmp_path: Path) -> None:
    keys = keys_file(tmp_path)
    settings = settings_for(chain, tmp_path, api_keys_file=keys, require_api_key=True)
    async with serving(settings) as client, aiohttp.ClientSession() as session:
        for headers in ({}, {"X-Api-Key": "a guess that is wrong"}):
            status, answer = await posted(client.rpc.url, headers=headers)
            assert (status, answer["error"]["code"]) == (401, -32001)
            assert "guess" not in json.dumps(answer)
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await session.ws_connect(f"{client.rpc.url}/ws", headers=headers)
            assert refused.value.status == 401
        known = {"apikey": "nobody limits this one"}
        async with session.ws_connect(f"{client.rpc.url}/ws", params=known) as socket:
            await socket.send_json(CHAIN_ID_REQUEST)
            assert (await socket.receive_json(timeout=10))["result"] == hex(1337)
        async with session.get(f"{client.rpc.url}/health") as response:
            assert response.status == 200
    with pytest.raises(BadInput, match="require_api_key needs api_keys_file"):
        replace(settings, api_keys_file=None)


def test_guesses_of_keys_count_against_the_address() -> None:
    clients = Clients(0.001, 2, parse_api_keys(KEYS, "here"), need_key=True)
    for _ in range(2):
        with pytest.raises(UnknownKey):
            clients.wait_s("10.0.0.1", "a guess", 1)
    assert clients.wait_s("10.0.0.1", "another guess", 1) > 0
    with pytest.raises(UnknownKey):
        clients.wait_s("10.0.0.2", None, 1)
    assert Clients(0, 1, (), need_key=False).wait_s("10.0.0.1", "a header of some proxy", 1) == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[a", "is no TOML"),
        ('a = "secret words here"', "client 'a' .* has no key"),
        ('[a]\nkey = "secret"', "is short"),
        ('[a]\nkey = "secret words here"\nrate = 5', "'rate' of the client 'a' .* is unknown"),
        ('[a]\nkey = "secret words here"\nburst = 1.5', "burst .* of a wrong type"),
        ('[a]\nkey = "secret words here"\nrate_per_s = -1', "rate_per_s of 0 or more"),
        ('[a]\nkey = "secret words here"\nrate_per_s = nan', "rate_per_s of 0 or more"),
        ('[a]\nkey = "secret words here"\n[b]\nkey = "secret words here"', "same key"),
    ],
)
def test_a_wrong_file_of_keys_is_told_without_a_key(text: str, words: str) -> None:
    with pytest.raises(BadInput, match=words) as caught:
        parse_api_keys(text, "keys.toml")
    assert "secret" not in str(caught.value)


async def test_not_ready_while_the_store_takes_no_writes(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bundler.service._WRITE_S", 0.05)
    settings = settings_for(chain, tmp_path)
    async with serving(settings) as client:
        await until(lambda: _is_ready(client), "it is ready")
        other = sqlite3.connect(settings.database, timeout=5, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")  # as a full disk does: every write fails until it ends
        try:
            await until(lambda: _problem(client, "the store cannot be written to"), "the store is a problem")
        finally:
            other.rollback()
            other.close()
        await until(lambda: _is_ready(client), "it is ready again")


async def test_neither_the_nodes_access_key_nor_clients_keys_are_in_the_log(chain: Chain, tmp_path: Path) -> None:
    node = chain.anvil.url.replace("http://", "http://user:nodepassword@") + "/?token=nodetoken"
    settings = settings_for(
        chain, tmp_path, rpc_url=node, api_keys_file=keys_file(tmp_path), require_api_key=True, log_format="json"
    )
    async with process(settings) as running:
        url = running.client.rpc.url
        assert (await posted(url, params={"apikey": "nobody limits this one"}))[0] == 200
        assert (await posted(url, params={"apikey": "a wrong guess of a key"}))[0] == 401
        running.process.terminate()
        assert await running.died() == 0
        lines = running.output().splitlines()
    assert all({"time", "level", "logger", "message"} <= set(json.loads(line)) for line in lines)
    text = "\n".join(lines)
    assert "stopped" in text
    for secret in ("nodepassword", "nodetoken", "nobody limits", "wrong guess"):
        assert secret not in text


async def test_the_doctor_says_when_a_node_can_only_trace_in_full(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nodes that know no overrides ignore them, or refuse; both are behind a proxy here."""
    ask = FaultProxy._ask

    async def ignoring(self: FaultProxy, document: Any) -> Any:
        if document["method"] == "debug_traceCall":
            document["params"][2].pop("stateOverrides", None)
        return await ask(self, document)

    async def refusing(self: FaultProxy, document: Any) -> Any:
        if document["method"] == "debug_traceCall" and "stateOverrides" in document["params"][2]:
            return {"jsonrpc": "2.0", "id": document["id"], "error": {"code": -32602, "message": "unknown field"}}
        return await ask(self, document)

    async with FaultProxy.start(chain.anvil.url) as proxy:
        settings = settings_for(chain, tmp_path, rpc_url=proxy.url)
        for fault, words in ((ignoring, "ignores stateOverrides"), (refusing, "unknown field")):
            monkeypatch.setattr(FaultProxy, "_ask", fault)
            level, text = (await examined(settings))["safe mode"]
            assert level == "warning"
            assert words in text
