"""The policy service: what it judges and attests for traders who sign elsewhere, and what it does when something is wrong."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from contracts import bindings as b
from contracts.bindings import Call
from contracts.entrypoint.base import DEPOSIT_TO
from contracts.eoa import TransactionSender
from contracts.errors import BadInput, OperationFailed, RpcError
from contracts.rpc import RpcClient
from contracts.types import checksum, keccak, to_hex
from contracts.userop import UserOperation, intent_hash
from policies import load
from policies.approvals import Subject
from policies.attestation import Attestation, SignedApproval, encode_attested_envelope, quorum_id, recover_signer
from tests.wallet.keeper_rig import free_port
from tests.wallet.test_proposals import ASKING
from tests.wallet.test_sizing import order
from tests.wallet.trading_floor import POLICY, Trader, book_on, now_s, on_lane, trader_on
from wallet import setup
from wallet.account import Birth, suggest_fees
from wallet.audit_verify import verify
from wallet.proposals import approval_text
from wallet.serve import Limits, Service, listen
from wallet.serve_engine import PolicyService

TOKEN = "a token of quite some length"


@dataclass(slots=True)
class Desk:
    """A trader elsewhere, and the service that judges for them."""

    trader: Trader
    service: Service
    url: str
    http: aiohttp.ClientSession

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """(status, JSON answer)."""
        sent = {"Authorization": f"Bearer {TOKEN}"} | headers
        async with self.http.request(method, self.url + path, json=body, headers=sent) as answer:
            return answer.status, await answer.json()

    async def operation(self, leverage: str = "2", *, lane: int = 0, **fields: Any) -> dict[str, str]:
        """A final operation that opens a long, as a trader's own software would send it."""
        calls = await order(self.trader, Decimal(10_000) * Decimal(leverage))
        op = await self.draft(calls, lane)
        return op.replace(**fields).to_rpc()

    async def draft(self, calls: list[Call], lane: int = 0) -> UserOperation:
        account = on_lane(self.trader.signer, lane).account if lane else self.trader.signer.account
        max_fee, tip = await suggest_fees(self.trader.net.rpc)
        op = await account.draft(calls, max_fee_wei=max_fee, priority_fee_wei=tip)
        return op.replace(call_gas_limit=2_000_000, verification_gas_limit=500_000, pre_verification_gas=100_000)

    def kinds(self) -> list[str]:
        (log,) = self.service.policy.logs(self.trader.address)
        return [entry.kind for entry in log.entries()]


def policy_service(trader: Trader, folder: Path, **changes: Any) -> PolicyService:
    signer = trader.signer
    assert signer.engine is not None
    assert signer.reader is not None
    given: dict[str, Any] = {
        "rpc": trader.net.rpc,
        "entry_point": signer.account.entry_point,
        "chain_id": trader.net.chain_id,
        "policy": trader.policy,
        "key": trader.net.accounts.engine,
        "risk_validator": trader.net.addresses.risk_validator,
        "reader": signer.reader,
        "folder": folder / "engine",
    }
    return PolicyService(**(given | changes))


@contextlib.asynccontextmanager
async def served(trader: Trader, folder: Path, limits: Limits = Limits(), **changes: Any) -> AsyncIterator[Desk]:  # noqa: B008
    service = Service(policy_service(trader, folder, **changes), TOKEN, limits)
    runner, url = await listen(service, "127.0.0.1", 0)
    try:
        async with aiohttp.ClientSession() as http:
            yield Desk(trader, service, url, http)
    finally:
        service.closing.set()
        await runner.cleanup()
        service.policy.close()


@pytest.fixture
async def desk(trader: Trader, tmp_path: Path) -> AsyncIterator[Desk]:
    await trader.deploy()
    async with served(trader, tmp_path) as found:
        yield found


async def test_an_operation_is_judged_on_the_services_own_simulation(desk: Desk) -> None:
    status, found = await desk.ask("POST", "/v1/judgements", {"userOp": await desk.operation("2")})
    assert status == 200
    assert found["allowed"] is True
    assert Decimal(found["decision"]["limits"][0]["after"]) > Decimal("1.9")
    assert found["callGas"] > 100_000
    assert desk.kinds() == ["decision"]


async def test_a_refused_operation_comes_back_with_the_largest_size(desk: Desk) -> None:
    body = {"userOp": await desk.operation("4")}
    status, found = await desk.ask("POST", "/v1/judgements", body)
    assert (status, found["allowed"]) == (200, False)
    assert 30_000 < Decimal(found["decision"]["sizes"]["size"]) < 31_100
    status, found = await desk.ask("POST", "/v1/judgements", body | {"sizes": False})
    assert found["decision"]["sizes"] is None


async def test_the_attestation_is_what_the_chain_asks_for(desk: Desk) -> None:
    fields = await desk.operation("2")
    status, found = await desk.ask("POST", "/v1/attestations", {"userOp": fields})
    assert status == 200, found
    op, trader = UserOperation.from_rpc(fields), desk.trader
    packed = bytes.fromhex(found["attestation"][2:])
    _, decision = await desk.ask("GET", f"/v1/decisions/{found['decision']}")
    attestation = Attestation(
        account=op.sender,
        entry_point=trader.signer.account.entry_point.address,
        user_op_hash=trader.signer.account.user_op_hash(op),
        intent_hash=intent_hash(op),
        policy_id=trader.policy.policy_id,
        policy_epoch=1,
        facts_hash=bytes.fromhex(decision["decision"]["facts_hash"][2:]),
        decision=1,
        valid_after_s=0,
        valid_until_s=found["validUntil"],
    )
    digest = attestation.digest(trader.net.chain_id, trader.net.addresses.risk_validator)
    engine = trader.net.accounts.engine.address
    assert packed[:20] == engine
    assert recover_signer(digest, packed[-65:]) == engine
    assert desk.kinds() == ["decision", "attestation"]


async def test_what_the_policy_denies_is_not_attested_and_says_why(desk: Desk) -> None:
    status, found = await desk.ask("POST", "/v1/attestations", {"userOp": await desk.operation("4")})
    assert status == 403
    assert "leverage" in found["error"]["message"]
    assert found["error"]["decision"]["outcome"] == "deny"
    assert "attestation" not in desk.kinds()
    theft = Call(desk.trader.net.addresses.usdc, b.TRANSFER.encode(keccak(b"thief")[:20], 10**6))
    status, found = await desk.ask("POST", "/v1/attestations", {"userOp": (await desk.draft([theft])).to_rpc()})
    assert status == 403
    assert "nothing allows the call" in found["error"]["message"]


async def test_what_needs_a_quorum_is_attested_with_its_approvals_only(tmp_path: Path, trader: Trader) -> None:
    asking = await trader_on(trader.net, tmp_path, bundler=trader.net.rpc, policy=ASKING, salt="quorum")
    await asking.deploy()
    async with served(asking, tmp_path) as desk:
        fields = await desk.operation("2.5")
        status, found = await desk.ask("POST", "/v1/attestations", {"userOp": fields})
        assert status == 403
        assert "0 of 2 approvals" in found["error"]["message"]
        op, people = UserOperation.from_rpc(fields), trader.net.accounts
        until_s = await now_s(trader.net) + 60
        subject = Subject(
            op.sender,
            asking.signer.account.entry_point.address,
            intent_hash(op),
            asking.policy.policy_id,
            1,
            trader.net.chain_id,
            trader.net.addresses.risk_validator,
        )
        lines = [
            approval_text(SignedApproval(one.address, until_s, one.sign_hash(subject.digest(until_s))))
            for one in (people.guardian, people.guardian3)
        ]
        body = {"userOp": fields, "approvals": lines[:1]}
        status, found = await desk.ask("POST", "/v1/attestations", body)
        assert status == 403
        assert "1 of 2 approvals" in found["error"]["message"]
        status, found = await desk.ask("POST", "/v1/attestations", body | {"approvals": ["nonsense"]})
        assert status == 400
        status, found = await desk.ask("POST", "/v1/attestations", body | {"approvals": lines})
        assert status == 200, found
        assert found["quorums"] == ["desk"]
        assert found["validUntil"] <= until_s
        packed = bytes.fromhex(found["attestation"][2:])
        assert (packed[84], packed[85:117]) == (2, quorum_id(["desk"]))
        again = await desk.ask("POST", "/v1/attestations", {"userOp": fields})
        assert again == (200, found)


async def test_the_same_request_twice_gives_the_same_attestation_and_one_record(desk: Desk) -> None:
    body = {"userOp": await desk.operation("2")}
    first, second, third = await asyncio.gather(*(desk.ask("POST", "/v1/attestations", body) for _ in range(3)))
    assert first == second == third
    assert first[0] == 200
    assert desk.kinds() == ["decision", "attestation"]


async def test_of_two_operations_at_once_that_would_breach_together_one_is_refused(desk: Desk) -> None:
    """2 x and 2 x of one margin: each alone is inside 3.1, both together are not. They are on two lanes, so both could be included."""
    bodies = [{"userOp": await desk.operation("2", lane=lane)} for lane in (0, 1)]
    answers = await asyncio.gather(*(desk.ask("POST", "/v1/attestations", body) for body in bodies))
    assert sorted(status for status, _ in answers) == [200, 403]
    (refused,) = [found for status, found in answers if status == 403]
    assert "together they were never judged" in refused["error"]["message"]


async def test_two_services_with_one_folder_share_their_reservations(trader: Trader, tmp_path: Path) -> None:
    await trader.deploy()
    async with served(trader, tmp_path) as one, served(trader, tmp_path) as two:
        bodies = [{"userOp": await one.operation("2", lane=lane)} for lane in (0, 1)]
        answers = await asyncio.gather(
            one.ask("POST", "/v1/attestations", bodies[0]), two.ask("POST", "/v1/attestations", bodies[1])
        )
        assert sorted(status for status, _ in answers) == [200, 403]


async def test_a_restart_keeps_reservations(trader: Trader, tmp_path: Path) -> None:
    await trader.deploy()
    async with served(trader, tmp_path) as desk:
        body = {"userOp": await desk.operation("2")}
        _, given = await desk.ask("POST", "/v1/attestations", body)
    async with served(trader, tmp_path) as desk:
        assert await desk.ask("POST", "/v1/attestations", body) == (200, given)
        status, _ = await desk.ask("POST", "/v1/attestations", {"userOp": await desk.operation("2", lane=1)})
        assert status == 403
        (log,) = desk.service.policy.logs()
        assert verify(log).sound


async def test_an_approval_for_a_paymaster_is_given_on_the_intent(desk: Desk) -> None:
    fields = await desk.operation("2")
    status, found = await desk.ask("POST", "/v1/approvals", {"userOp": fields})
    assert status == 200
    assert found["approval"]["intentHash"] == to_hex(intent_hash(UserOperation.from_rpc(fields)))
    assert found["approval"]["engine"] == to_hex(desk.trader.net.accounts.engine.address)
    assert (await desk.ask("POST", "/v1/approvals", {"userOp": await desk.operation("4")}))[0] == 403


async def test_facts_of_a_client_are_not_taken(desk: Desk) -> None:
    body = {"userOp": await desk.operation("4"), "facts": {"succeeded": True}}
    status, found = await desk.ask("POST", "/v1/attestations", body)
    assert status == 400
    assert "facts are read from the chain" in found["error"]["message"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"nonce": "0x7"}, "not in the attested lane"),
        ({"callData": "0xzz"}, "callData"),
        ({"surprise": "0x1"}, "unknown UserOperation field"),
        ({"factory": "0x" + "11" * 20, "factoryData": "0x"}, "exists already"),
        ({"sender": "0x" + "99" * 20}, "does not exist"),
    ],
)
async def test_an_operation_that_cannot_be_meant_is_refused_before_anything_is_recorded(
    desk: Desk, change: dict[str, str], words: str
) -> None:
    status, found = await desk.ask("POST", "/v1/attestations", {"userOp": await desk.operation("2") | change})
    assert status == 400
    assert words in found["error"]["message"]
    assert list(desk.service.policy.logs()) == []


async def test_an_operation_that_is_not_next_in_its_lane_is_not_judged(desk: Desk) -> None:
    """An attestation below the judged nonce counts as used; so nobody may skip one."""
    fields = await desk.operation("2")
    later = {**fields, "nonce": hex(int(fields["nonce"], 16) + 1)}
    status, found = await desk.ask("POST", "/v1/attestations", {"userOp": later})
    assert status == 400
    assert "the next nonce of this lane is" in found["error"]["message"]


async def test_without_the_token_nothing_is_answered_but_health(desk: Desk) -> None:
    for token in ("Bearer wrong", "", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer"):
        for path in ("/v1/policy", "/v1/decisions", "/v1/events", "/nowhere"):
            async with desk.http.get(desk.url + path, headers={"Authorization": token}) as answer:
                assert answer.status == 401
                assert "policy" not in (await answer.json())
    async with desk.http.get(desk.url + "/health") as answer:
        assert answer.status == 200
    async with desk.http.get(desk.url + "/ready") as answer:
        assert (await answer.json())["ready"] is True


async def test_a_token_that_is_no_secret_is_not_taken(trader: Trader, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="at least 24"):
        Service(policy_service(trader, tmp_path), "short")


@pytest.mark.parametrize("body", [b"{", b"[]", b'"x"', b"{}", b'{"userOp": 5}', b"\xff", b"[" * 20_000])
async def test_a_malformed_body_is_said_so(desk: Desk, body: bytes) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    async with desk.http.post(desk.url + "/v1/judgements", data=body, headers=headers) as answer:
        assert answer.status == 400
        assert (await answer.json())["error"]["message"]


async def test_a_body_that_is_too_large_is_refused(desk: Desk) -> None:
    status, found = await desk.ask("POST", "/v1/judgements", {"userOp": {"callData": "0x" + "00" * 300_000}})
    assert status == 413
    assert "at most" in found["error"]["message"]


async def test_unknown_paths_and_methods_are_answered_in_json(desk: Desk) -> None:
    assert (await desk.ask("GET", "/v1/nothing"))[0] == 404
    assert (await desk.ask("GET", "/v1/attestations"))[0] == 405
    assert (await desk.ask("GET", "/v1/decisions/0x" + "00" * 32))[0] == 404
    assert (await desk.ask("GET", "/v1/decisions/zz"))[0] == 400
    assert (await desk.ask("GET", "/v1/decisions"))[0] == 400


async def test_more_than_it_can_judge_at_once_is_told_to_come_back(trader: Trader, tmp_path: Path) -> None:
    await trader.deploy()
    async with served(trader, tmp_path, Limits(judging=1)) as desk:
        body = {"userOp": await desk.operation("2")}
        answers = await asyncio.gather(*(desk.ask("POST", "/v1/judgements", body) for _ in range(4)))
        assert {status for status, _ in answers} == {200, 503}
        assert (await desk.ask("POST", "/v1/judgements", body))[0] == 200


async def test_a_node_that_is_down_is_said_so_and_nothing_is_recorded(trader: Trader, tmp_path: Path) -> None:
    await trader.deploy()
    async with RpcClient(f"http://127.0.0.1:{free_port()}") as nobody, served(trader, tmp_path, rpc=nobody) as desk:
        status, found = await desk.ask("POST", "/v1/attestations", {"userOp": await desk.operation("2")})
        assert status == 502
        assert found["error"]["message"]
        async with desk.http.get(desk.url + "/ready") as answer:
            assert answer.status == 503
            assert "does not answer" in (await answer.json())["why"]
        assert list(desk.service.policy.logs()) == []


async def test_a_node_of_another_chain_is_not_believed(trader: Trader, tmp_path: Path) -> None:
    await trader.deploy()
    async with served(trader, tmp_path, chain_id=1) as desk:
        status, found = await desk.ask("POST", "/v1/attestations", {"userOp": await desk.operation("2")})
        assert status == 502
        assert "this engine signs for chain 1" in found["error"]["message"]
        async with desk.http.get(desk.url + "/ready") as answer:
            assert answer.status == 503


async def test_a_node_that_lags_is_not_ready(trader: Trader, tmp_path: Path) -> None:
    now_s = int((await trader.net.rpc.block())["timestamp"], 16)
    async with (
        served(trader, tmp_path, clock=lambda: now_s + 3_600) as desk,
        desk.http.get(desk.url + "/ready") as answer,
    ):
        assert answer.status == 503
        assert "3600 s old" in (await answer.json())["why"]


async def test_a_request_that_takes_too_long_is_ended(trader: Trader, tmp_path: Path) -> None:
    await trader.deploy()

    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    deaf = await asyncio.start_server(never, "127.0.0.1", 0)
    port = deaf.sockets[0].getsockname()[1]
    async with (
        RpcClient(f"http://127.0.0.1:{port}") as rpc,
        served(trader, tmp_path, Limits(request_s=0.3), rpc=rpc) as desk,
    ):
        status, found = await desk.ask("POST", "/v1/judgements", {"userOp": await desk.operation("2")})
        assert status == 504
        assert "no answer within 0.3 s" in found["error"]["message"]
    deaf.close()


async def test_an_account_that_it_does_not_serve_is_refused(trader: Trader, tmp_path: Path) -> None:
    await trader.deploy()
    async with served(trader, tmp_path, accounts=frozenset({b"\x01" * 20})) as desk:
        status, found = await desk.ask("POST", "/v1/judgements", {"userOp": await desk.operation("2")})
        assert status == 400
        assert "does not serve account" in found["error"]["message"]


async def test_without_a_key_it_judges_and_attests_nothing(trader: Trader, tmp_path: Path) -> None:
    await trader.deploy()
    async with served(trader, tmp_path, key=None) as desk:
        body = {"userOp": await desk.operation("2")}
        assert (await desk.ask("POST", "/v1/judgements", body))[1]["allowed"] is True
        status, found = await desk.ask("POST", "/v1/attestations", body)
        assert status == 400
        assert "no key" in found["error"]["message"]
        assert "attestation" not in desk.kinds()


async def test_two_engines_attest_one_operation_each_for_itself(trader: Trader, tmp_path: Path) -> None:
    await trader.deploy()
    keys = (trader.net.accounts.engine, trader.net.accounts.owner3)
    found = []
    for number, key in enumerate(keys):
        async with served(trader, tmp_path / str(number), key=key) as desk:
            status, answer = await desk.ask("POST", "/v1/attestations", {"userOp": await desk.operation("2")})
            assert status == 200
            found.append(answer)
    assert {answer["engine"] for answer in found} == {checksum(key.address) for key in keys}
    assert found[0]["userOpHash"] == found[1]["userOpHash"]
    assert found[0]["decision"] == found[1]["decision"], "the same facts give the same decision on both"


async def test_the_chain_takes_an_operation_that_two_of_two_engines_attested_and_not_one_of_them(
    trader: Trader, tmp_path: Path
) -> None:
    """k of n on the real validator: the entry point's own verdict on envelopes with one, and with both attestations."""
    net, people = trader.net, trader.net.accounts
    policy = load(POLICY + "attestation: {engines: [engine, engine_2], threshold: 2}\n")
    engines = (people.engine, people.owner3)
    config = setup.guarded_config(
        policy,
        book_on(net),
        owner=people.owner.address,
        engines=tuple(engine.address for engine in engines),
        now_s=await now_s(net),
    )
    birth = Birth(net.addresses.risk_account_factory, config, keccak(str(tmp_path).encode()))
    account = replace(trader.signer.account, address=await birth.address(net.rpc), birth=birth)
    deployer = TransactionSender(net.rpc, people.deployer, net.chain_id)
    await deployer.transact(net.addresses.usdc, b.MINT.encode(account.address, 10_000 * 10**6))
    await deployer.transact(account.entry_point.address, DEPOSIT_TO.encode(account.address), value=10**18)
    await deployer.transact(birth.factory, birth.factory_data)
    two = replace(trader, policy=policy, signer=replace(trader.signer, account=account))
    attestations, op = [], None
    for number, key in enumerate(engines):
        async with served(two, tmp_path / str(number), key=key) as desk:
            op = op or UserOperation.from_rpc(await desk.operation("2"))
            status, found = await desk.ask("POST", "/v1/attestations", {"userOp": op.to_rpc()})
            assert status == 200, found
            attestations.append(bytes.fromhex(found["attestation"][2:]))
    assert op is not None
    owner = account.sign(op, people.owner)

    async def included(parts: list[bytes]) -> None:
        signed = op.replace(signature=encode_attested_envelope(owner, parts))
        await deployer.transact(
            account.entry_point.address,
            account.entry_point.encode_handle_ops([signed], people.deployer.address),
            gas=8_000_000,
        )

    for part in attestations:
        with pytest.raises((RpcError, OperationFailed)):
            await included([part])
    await included(attestations)
    assert await account.next_nonce() == op.nonce + 1


async def test_decisions_are_listed_found_and_shown_as_a_page(desk: Desk) -> None:
    for leverage in ("2", "4"):
        await desk.ask("POST", "/v1/judgements", {"userOp": await desk.operation(leverage)})
    account = checksum(desk.trader.address)
    _, page = await desk.ask("GET", f"/v1/decisions?account={account}&limit=1")
    assert [entry["seq"] for entry in page["entries"]] == [1]
    _, rest = await desk.ask("GET", f"/v1/decisions?account={account}&after={page['next']}")
    assert [entry["decision"]["outcome"] for entry in rest["entries"]] == ["deny"]
    found = rest["entries"][0]["id"]
    _, one = await desk.ask("GET", f"/v1/decisions/{found}")
    assert one["decision"]["sizes"]["size"] is not None
    headers = {"Authorization": f"Bearer {TOKEN}", "Accept": "text/html"}
    async with desk.http.get(f"{desk.url}/v1/decisions/{found}", headers=headers) as answer:
        assert answer.content_type == "text/html"
        assert "<h1>Denied</h1>" in await answer.text()


async def test_the_policy_is_told(desk: Desk) -> None:
    _, found = await desk.ask("GET", "/v1/policy")
    assert found["id"] == to_hex(desk.trader.policy.policy_id)
    assert found["document"]["name"] == "floor"


async def lines(answer: aiohttp.ClientResponse, count: int) -> list[Any]:
    found: list[Any] = []
    async with asyncio.timeout(20):
        async for line in answer.content:
            if line.strip():
                found.append(json.loads(line))
            if len(found) == count:
                break
    return found


async def test_the_stream_has_every_entry_as_it_is_made(desk: Desk) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with desk.http.get(f"{desk.url}/v1/events", headers=headers) as stream:
        assert stream.content_type == "application/x-ndjson"
        await desk.ask("POST", "/v1/attestations", {"userOp": await desk.operation("2")})
        found = await lines(stream, 2)
    assert [entry["kind"] for entry in found] == ["decision", "attestation"]
    account = to_hex(desk.trader.address)
    async with desk.http.get(f"{desk.url}/v1/events?after={account}:1", headers=headers) as stream:
        assert [entry["kind"] for entry in await lines(stream, 1)] == ["attestation"], "what came behind the mark"


async def test_the_stream_speaks_server_sent_events_and_takes_up_where_it_was_left(desk: Desk) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}", "Accept": "text/event-stream"}
    url = f"{desk.url}/v1/events?account={checksum(desk.trader.address)}"

    async def event(stream: aiohttp.ClientResponse) -> dict[str, str]:
        async with asyncio.timeout(20):
            found: dict[str, str] = {}
            async for raw in stream.content:
                name, _, value = raw.decode().strip().partition(": ")
                if name:
                    found[name] = value
                elif "data" in found:
                    return found
            raise AssertionError("the stream ended")

    async with desk.http.get(url, headers=headers) as stream:
        assert stream.content_type == "text/event-stream"
        await desk.ask("POST", "/v1/attestations", {"userOp": await desk.operation("2")})
        first = await event(stream)
    assert first["event"] == "decision"
    async with desk.http.get(url, headers=headers | {"Last-Event-ID": first["id"]}) as stream:
        second = await event(stream)
    assert (second["event"], json.loads(second["data"])["seq"]) == ("attestation", 2)
    async with desk.http.get(url + "&after=nonsense", headers=headers) as stream:
        assert stream.status == 400


async def test_a_stream_shows_what_another_process_recorded(desk: Desk, tmp_path: Path) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with desk.http.get(f"{desk.url}/v1/events", headers=headers) as stream:
        other = policy_service(desk.trader, tmp_path)
        await other.judge(UserOperation.from_rpc(await desk.operation("2")))
        other.close()
        assert [entry["kind"] for entry in await lines(stream, 1)] == ["decision"]


async def test_streams_are_counted(trader: Trader, tmp_path: Path) -> None:
    async with served(trader, tmp_path, Limits(streams=1)) as desk:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with desk.http.get(f"{desk.url}/v1/events", headers=headers):
            assert (await desk.ask("GET", "/v1/events"))[0] == 503


async def test_a_reservation_ends_with_its_attestation(trader: Trader, tmp_path: Path) -> None:
    await trader.deploy()
    now = [int((await trader.net.rpc.block())["timestamp"], 16)]
    patient = replace(trader.policy, max_block_age_s=10**6, max_price_age_s=10**6)
    async with served(trader, tmp_path, clock=lambda: now[0], policy=patient) as desk:
        assert (await desk.ask("POST", "/v1/attestations", {"userOp": await desk.operation("2")}))[0] == 200
        second = {"userOp": await desk.operation("2", lane=1)}
        assert (await desk.ask("POST", "/v1/attestations", second))[0] == 403
        await trader.net.rpc.call("evm_increaseTime", trader.policy.attestation_validity_s + 5)
        await trader.net.rpc.call("evm_mine")
        now[0] = int((await trader.net.rpc.block())["timestamp"], 16)
        second = {"userOp": await desk.operation("2", lane=1)}
        assert (await desk.ask("POST", "/v1/attestations", second))[0] == 200
