"""Several submission endpoints: order, falling back, private ones that stay private, conditions, and endpoints that leave us out."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import rlp

from bundler.censorship import passed_over
from bundler.conditional import METHOD, REJECTED, TOO_COSTLY, Condition
from bundler.doctor import examine
from bundler.endpoints import Endpoint, names_of, parse_endpoints
from bundler.keys import KeyFile
from bundler.settings import Settings
from bundler.store import Attempt
from contracts.devnet.accounts import devnet_key
from contracts.devnet.chain import CHAIN_ID
from contracts.entrypoint import V08
from contracts.eoa import Eoa
from contracts.errors import BadInput
from contracts.types import Hash32, checksum, keccak, parse_bytes, to_hex
from contracts.userop import UserOperation
from tests.bundler.relay import Relay
from tests.bundler.rig import (
    GWEI,
    TARGET,
    Chain,
    Client,
    serving,
    settings_for,
    until,
    with_limits,
)
from tests.bundler.test_operation import free_port
from tests.chaos.fault_proxy import FaultProxy


def private(relay: Relay, *, conditional: bool = False) -> Endpoint:
    return Endpoint(relay.url, True, conditional)


async def waiting_operation(chain: Chain, client: Client) -> Hash32:
    """An operation in a bundle while the chain mines nothing by itself."""
    await chain.automine(False)
    op_hash = await client.send(await (await chain.account()).operation())
    await client.becomes(op_hash, "bundled")
    return op_hash


async def counts(client: Client) -> list[dict[str, int]]:
    return [one["counts"] for one in (await client.service())["endpoints"]]


async def seen(chain: Chain, client: Client) -> None:
    """The bundler has settled the latest block."""
    head = await chain.rpc.block_number()

    async def check() -> bool:
        return int((await client.service())["lastBlock"], 16) >= head

    await until(check, "the block is seen")


async def stranger_pays(chain: Chain, tip_wei: int) -> str:
    """Somebody else's transfer waits in the public mempool. A fresh key, so that none waits for another."""
    key = Eoa(devnet_key(f"stranger {chain.fresh_address().hex()}"))
    await chain.rpc.call("anvil_setBalance", to_hex(key.address), hex(10**18))
    raw, _ = key.sign_transaction(
        {
            "type": 2, "chainId": CHAIN_ID, "nonce": 0, "to": checksum(TARGET), "value": 0, "gas": 21_000,
            "maxFeePerGas": 20 * GWEI, "maxPriorityFeePerGas": tip_wei, "data": b"",
        }
    )  # fmt: skip
    found: str = await chain.rpc.call("eth_sendRawTransaction", to_hex(raw))
    return found


async def mine_strangers(chain: Chain, client: Client, blocks: int, tip_wei: int = 1) -> None:
    for _ in range(blocks):
        await stranger_pays(chain, tip_wei)
        await chain.rpc.call("evm_mine")
        await seen(chain, client)


# -- settings -------------------------------------------------------------------------------------------------------------


def test_endpoints_are_read_from_tables_words_or_one_line() -> None:
    a, b = Endpoint("https://a", True, True), Endpoint("http://b:8545")
    assert parse_endpoints([{"url": "https://a", "private": True, "conditional": True}, "public http://b:8545"]) == (
        a,
        b,
    )
    assert parse_endpoints("private conditional https://a, http://b:8545") == (a, b)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("private public https://a", "not both"),
        ("secret https://a", "secret"),
        ("a.example", "begins with"),
        ([{"url": "https://a", "privat": True}], "privat is unknown"),
        ([{"private": True}], "url is missing"),
        ([{"url": "https://a", "private": "yes"}], "true or false"),
        ("https://a, private https://a", "twice"),
        (7, "a list"),
    ],
)
def test_an_endpoint_that_cannot_be_understood_is_refused(given: object, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        parse_endpoints(given)


def test_an_endpoints_key_is_in_no_name_and_no_repr() -> None:
    first, second = Endpoint("https://relay.example/v1/SECRET"), Endpoint("https://relay.example/v1/OTHER")
    assert "SECRET" not in repr(first)
    assert names_of([first, second]) == ["https://relay.example#1", "https://relay.example#2"]


@pytest.mark.parametrize("submission", [(), (Endpoint("https://a", True), Endpoint("https://b"))])
def test_private_only_takes_private_endpoints_only(tmp_path: Path, submission: tuple[Endpoint, ...]) -> None:
    with pytest.raises(BadInput, match="private_only"):
        Settings(
            rpc_url="http://node",
            executor_key=KeyFile(tmp_path),
            database=tmp_path,
            private_only=True,
            submission=submission,
        )


# -- order and falling back -----------------------------------------------------------------------------------------------


async def test_a_bundle_goes_to_the_first_endpoint_and_nowhere_else(own_chain: Chain, tmp_path: Path) -> None:
    async with Relay.start(own_chain.rpc) as first, Relay.start(own_chain.rpc) as second:
        submission = (private(first), Endpoint(second.url))
        async with (
            Relay.start(own_chain.rpc, "node") as node,
            serving(settings_for(own_chain, tmp_path, rpc_url=node.url, submission=submission)) as client,
        ):
            op_hash = await client.send(await (await own_chain.account()).operation())
            assert (await client.included(op_hash))["success"] is True
            await client.settled()
    assert len(first.sends) >= 1
    assert second.asked == []
    assert node.sends == []


async def test_an_endpoint_that_refuses_or_is_away_hands_over_to_the_next(own_chain: Chain, tmp_path: Path) -> None:
    async with Relay.start(own_chain.rpc, "refuses") as first, Relay.start(own_chain.rpc) as third:
        submission = (private(first), Endpoint("http://127.0.0.1:1", True), Endpoint(third.url))
        async with serving(settings_for(own_chain, tmp_path, submission=submission)) as client:
            op_hash = await client.send(await (await own_chain.account()).operation())
            assert (await client.included(op_hash))["success"] is True
            found = await counts(client)
    assert found[0] == {"refused": 1}
    assert found[1] == {"unreachable": 1}
    assert found[2]["taken"] >= 1


async def test_an_endpoint_that_failed_three_times_is_the_last_choice(own_chain: Chain, tmp_path: Path) -> None:
    async with Relay.start(own_chain.rpc, "refuses") as first, Relay.start(own_chain.rpc) as second:
        submission = (private(first), private(second))
        async with serving(settings_for(own_chain, tmp_path, submission=submission)) as client:
            for _ in range(5):
                op_hash = await client.send(await (await own_chain.account()).operation())
                await client.included(op_hash)
            status = await client.service()
    assert len(first.sends) == 3
    assert status["endpoints"][0]["resting"] is True
    assert status["endpoints"][1]["resting"] is False


async def test_when_no_endpoint_takes_anything_readiness_says_so_and_operations_wait(
    own_chain: Chain, tmp_path: Path
) -> None:
    async with Relay.start(own_chain.rpc, "refuses") as relay:
        settings = settings_for(own_chain, tmp_path, submission=(private(relay),), private_only=True)
        async with serving(settings) as client:
            op_hash = await client.send(await (await own_chain.account()).operation())

            async def told() -> bool:
                return any("no submission endpoint" in why for why in (await client.service())["problems"])

            await until(told, "readiness names the endpoint")
            assert (await client.status(op_hash) or {})["status"] == "bundled"
            relay.behaviour = "passes"
            assert (await client.included(op_hash))["success"] is True


async def test_what_an_endpoint_brings_into_no_block_goes_to_the_next_too(own_chain: Chain, tmp_path: Path) -> None:
    async with Relay.start(own_chain.rpc, "keeps") as first, Relay.start(own_chain.rpc) as second:
        settings = settings_for(
            own_chain, tmp_path, submission=(private(first), Endpoint(second.url)), blocks_before_fallback=2
        )
        async with serving(settings) as client:
            op_hash = await waiting_operation(own_chain, client)
            await own_chain.mine()
            await seen(own_chain, client)
            assert second.sends == []
            await own_chain.mine()
            await until(lambda: _handed_in(second), "the second has it")
            assert second.sends[0][1] == first.sends[0][1]  # the same bytes: it cannot be included twice
            assert (await counts(client))[0]["late"] == 1
            await own_chain.automine(True)
            await own_chain.mine()
            assert (await client.included(op_hash))["success"] is True
            assert len(await own_chain.receipts_of(V08, op_hash)) == 1


@pytest.mark.parametrize("fault", ["drop", "drop_answer", "truncate", "fail_5xx", "refuse"])
async def test_whatever_an_endpoints_network_does_the_next_gets_it_and_it_is_included_once(
    own_chain: Chain, tmp_path: Path, fault: str
) -> None:
    async with FaultProxy.start(own_chain.anvil.url) as proxy, Relay.start(own_chain.rpc) as second:
        setattr(proxy.faults, fault, 1.0)
        settings = settings_for(own_chain, tmp_path, submission=(Endpoint(proxy.url), private(second)))
        async with serving(settings) as client:
            op_hash = await client.send(await (await own_chain.account()).operation())
            assert (await client.included(op_hash))["success"] is True
            await client.settled()
            found = await counts(client)
    assert proxy.done[fault] >= 1
    assert {"unreachable", "refused"} & set(found[0])
    assert found[1]["taken"] >= 1
    assert len(await own_chain.receipts_of(V08, op_hash)) == 1


async def _handed_in(relay: Relay) -> bool:
    return bool(relay.sends)


# -- private only ---------------------------------------------------------------------------------------------------------


async def test_private_only_shows_nothing_to_the_node_through_estimate_replacement_cancel_and_restart(
    own_chain: Chain, tmp_path: Path
) -> None:
    async with Relay.start(own_chain.rpc, "node") as node, Relay.start(own_chain.rpc, "keeps") as relay:
        settings = settings_for(
            own_chain,
            tmp_path,
            rpc_url=node.url,
            submission=(private(relay),),
            private_only=True,
            blocks_before_resubmit=2,
        )
        async with serving(settings) as client:
            await own_chain.automine(False)
            kept = await own_chain.account()
            op = kept.sign(await client.estimated(await kept.draft()))
            op_hash = await client.send(op)
            await client.becomes(op_hash, "bundled")
            await own_chain.mine(2)  # a replacement with higher fees
            await until(partial(_transactions, relay, 2), "it is replaced")
        async with serving(settings) as client:  # started again with the bundle under way
            before = len(relay.sends)
            await until(partial(_more, relay, before), "it is handed in again")
            await own_chain.rpc.call("anvil_setBalance", to_hex(kept.address), "0x0")  # the operation is invalid now
            await own_chain.mine(3)
            await until(partial(_cancels, relay), "it is cancelled")
            relay.behaviour = "passes"
            await own_chain.automine(True)
            await own_chain.mine(3)
            await client.settled()
    assert node.sends == []
    assert not [method for method, _ in node.asked if method.startswith("eth_send")]


async def _transactions(relay: Relay, least: int) -> bool:
    return len({params[0] for _, params in relay.sends}) >= least


async def _more(relay: Relay, before: int) -> bool:
    return len(relay.sends) > before


async def _cancels(relay: Relay) -> bool:
    """Whether a transaction without data came in: field 7 of EIP-1559."""
    return any(rlp.decode(parse_bytes(params[0])[1:])[7] == b"" for _, params in relay.sends)


# -- conditions -----------------------------------------------------------------------------------------------------------


def test_a_condition_counts_as_the_op_stack_counts_and_gives_up_slots_from_the_end() -> None:
    slots = tuple((bytes([i]) * 20, i, i) for i in range(4))
    condition = Condition(slots, 100, 200)
    assert condition.cost == 6
    assert condition.within(1_000) == condition
    shorter = condition.within(4)
    assert shorter is not None
    assert (shorter.slots, shorter.cost) == (slots[:2], 4)
    assert condition.within(2) is None


def test_a_condition_is_written_as_erc_7796_has_it() -> None:
    condition = Condition(((b"\x0a" * 20, 1, 2), (b"\x0a" * 20, 3, 4)), 16, 32)
    assert condition.to_rpc() == {
        "knownAccounts": {
            "0x" + "0a" * 20: {
                "0x" + "00" * 31 + "01": "0x" + "00" * 31 + "02",
                "0x" + "00" * 31 + "03": "0x" + "00" * 31 + "04",
            }
        },
        "blockNumberMax": "0x10",
        "timestampMax": "0x20",
    }


def _nonce_slot(sender: bytes) -> str:
    """NonceManager.nonceSequenceNumber[sender][0], the second variable of the entry point."""
    inner = keccak(sender.rjust(32, b"\0") + (1).to_bytes(32))
    return to_hex(keccak(bytes(32) + inner))


async def test_a_condition_holds_what_validation_read_and_not_the_deposit_that_anybody_can_raise(
    own_chain: Chain, tmp_path: Path
) -> None:
    async with Relay.start(own_chain.rpc) as relay:
        settings = settings_for(own_chain, tmp_path, submission=(private(relay, conditional=True),))
        async with serving(settings) as client:
            account = await own_chain.account(deployed=True)
            target = await own_chain.put(bytes.fromhex("5f545000"))  # reads its own slot 0 in execution
            op_hash = await client.send(await account.operation(to=target))
            assert (await client.included(op_hash))["success"] is True
    method, (_, condition) = relay.sends[0]
    known = condition["knownAccounts"]
    entry_point = {slot.lower() for slot in known[to_hex(V08.address)]}
    assert method == METHOD
    assert _nonce_slot(account.address) in entry_point
    assert to_hex(keccak(account.address.rjust(32, b"\0") + bytes(32))) not in entry_point
    assert len(known[to_hex(account.address)]) >= 2  # ERC-1967's implementation, and the owner
    assert to_hex(target) not in known
    assert int(condition["blockNumberMax"], 16) > 0


async def test_a_condition_that_does_not_hold_has_the_bundle_proven_again_at_the_same_fees(
    own_chain: Chain, tmp_path: Path
) -> None:
    async with Relay.start(own_chain.rpc) as relay:
        settings = settings_for(own_chain, tmp_path, submission=(private(relay, conditional=True),))
        async with serving(settings) as client:
            reads = await own_chain.put(bytes.fromhex("5f54505f5f5260205ff3"), deposit_on=V08)  # its slot 0, then valid
            relay.behaviour = "refuses"
            await own_chain.automine(False)
            op_hash = await client.send(with_limits(UserOperation(reads, 0, b"")))
            await client.becomes(op_hash, "bundled")
            await own_chain.rpc.call("anvil_setStorageAt", to_hex(reads), "0x0", to_hex((7).to_bytes(32)))
            relay.behaviour = "passes"
            await until(partial(_answered, relay, REJECTED), "the condition does not hold")
            await own_chain.mine()  # the state it was proven on is a block old now

            async def proven_again() -> bool:
                known = relay.sends[-1][1][1]["knownAccounts"]
                return bool(known[to_hex(reads)] == {to_hex(bytes(32)): to_hex((7).to_bytes(32))})

            await until(proven_again, "it is proven again, on the new state")
            await own_chain.automine(True)
            await own_chain.mine()
            assert (await client.included(op_hash))["success"] is True
            assert (await counts(client))[0]["condition"] >= 1
    assert relay.sends[-1][1][0] == relay.sends[0][1][0]  # nobody took it, so no fee is raised: the same bytes


async def _answered(relay: Relay, code: int) -> bool:
    return code in relay.answers


async def test_a_condition_that_costs_too_much_is_shortened_until_it_is_taken(own_chain: Chain, tmp_path: Path) -> None:
    async with Relay.start(own_chain.rpc, max_cost=3) as relay:
        settings = settings_for(own_chain, tmp_path, submission=(private(relay, conditional=True),))
        async with serving(settings) as client:
            op_hash = await client.send(await (await own_chain.account(deployed=True)).operation())
            assert (await client.included(op_hash))["success"] is True
            assert (await counts(client))[0]["cost"] >= 1
    costs = [
        sum(map(len, params[1]["knownAccounts"].values())) + 1 for method, params in relay.sends if method == METHOD
    ]
    assert TOO_COSTLY in relay.answers
    assert costs[0] > 3 >= costs[-1]


async def test_an_endpoint_without_the_method_gets_plain_transactions(own_chain: Chain, tmp_path: Path) -> None:
    async with Relay.start(own_chain.rpc, conditional=False) as relay:
        settings = settings_for(own_chain, tmp_path, submission=(private(relay, conditional=True),))
        async with serving(settings) as client:
            for _ in range(2):
                op_hash = await client.send(await (await own_chain.account()).operation())
                assert (await client.included(op_hash))["success"] is True
    assert [method for method, _ in relay.sends].count(METHOD) == 1


# -- left out -------------------------------------------------------------------------------------------------------------

ATTEMPT = Attempt(b"\x01" * 32, b"\x0e" * 20, 0, V08.address, b"\x02", (b"\x02" * 32,), 10 * GWEI, 2 * GWEI, 100)
CHEAP = {
    "hash": "0xaa",
    "from": "0x" + "0b" * 20,
    "type": "0x2",
    "maxFeePerGas": hex(20 * GWEI),
    "maxPriorityFeePerGas": "0x1",
}


def block(*transactions: dict[str, Any], gas_used: int = 0, base_fee_wei: int = GWEI) -> dict[str, Any]:
    return {
        "number": hex(102), "gasLimit": hex(30_000_000), "gasUsed": hex(gas_used), "baseFeePerGas": hex(base_fee_wei),
        "transactions": list(transactions),
    }  # fmt: skip


def test_a_block_with_room_and_a_cheaper_transaction_speaks_against_its_builder() -> None:
    assert passed_over(block(CHEAP), ATTEMPT, 1_000_000) == "0xaa"
    legacy = {"hash": "0xbb", "from": CHEAP["from"], "type": "0x0", "gasPrice": hex(2 * GWEI)}
    assert passed_over(block(legacy), ATTEMPT, 1_000_000) == "0xbb"


@pytest.mark.parametrize(
    "innocent",
    [
        block(),
        block(CHEAP, gas_used=29_500_000),
        block(CHEAP, base_fee_wei=11 * GWEI),
        block(CHEAP | {"maxPriorityFeePerGas": hex(2 * GWEI)}),
        block(CHEAP | {"from": "0x" + "0E" * 20}),
        block(CHEAP | {"type": "0x7e"}),
    ],
    ids=["empty", "no room", "we cannot pay", "as dear as ours", "our own", "a rollup's deposit"],
)
def test_a_block_that_has_a_reason_does_not(innocent: dict[str, Any]) -> None:
    assert passed_over(innocent, ATTEMPT, 1_000_000) is None


async def test_an_endpoint_that_leaves_us_out_of_blocks_with_room_is_counted_and_the_next_gets_it(
    own_chain: Chain, tmp_path: Path
) -> None:
    async with Relay.start(own_chain.rpc, "keeps") as first, Relay.start(own_chain.rpc) as second:
        settings = settings_for(
            own_chain,
            tmp_path,
            submission=(Endpoint(first.url), Endpoint(second.url)),
            blocks_before_fallback=20,
            blocks_before_resubmit=20,
        )
        async with serving(settings) as client:
            op_hash = await waiting_operation(own_chain, client)
            await mine_strangers(own_chain, client, 2)  # the first of them may have been under way
            assert (await counts(client))[0].get("censored", 0) == 0
            await mine_strangers(own_chain, client, 1)
            await until(lambda: _handed_in(second), "the second has it")
            found = (await counts(client))[0]
            assert (found["missed"], found["censored"]) == (2, 1)
            await own_chain.automine(True)
            await own_chain.mine()
            assert (await client.included(op_hash))["success"] is True
            handed_in = len(first.sends)
            following = await client.send(await (await own_chain.account()).operation())
            assert (await client.included(following))["success"] is True
            assert len(first.sends) == handed_in  # it rests


async def test_an_endpoint_that_includes_only_better_payers_is_not_accused(own_chain: Chain, tmp_path: Path) -> None:
    async with Relay.start(own_chain.rpc, "keeps") as first, Relay.start(own_chain.rpc) as second:
        settings = settings_for(
            own_chain,
            tmp_path,
            submission=(Endpoint(first.url), Endpoint(second.url)),
            blocks_before_fallback=20,
            blocks_before_resubmit=20,
        )
        async with serving(settings) as client:
            await waiting_operation(own_chain, client)
            await mine_strangers(own_chain, client, 4, tip_wei=3 * GWEI)
            assert "missed" not in (await counts(client))[0]
            assert second.sends == []


async def test_listeners_and_metrics_hear_of_an_endpoint_that_leaves_us_out(own_chain: Chain, tmp_path: Path) -> None:
    async with Relay.start(own_chain.rpc, "keeps") as first, Relay.start(own_chain.rpc) as second:
        admin_port = free_port()
        admin_url = f"http://127.0.0.1:{admin_port}"
        settings = settings_for(
            own_chain,
            tmp_path,
            submission=(Endpoint(first.url), Endpoint(second.url)),
            blocks_before_fallback=20,
            blocks_before_resubmit=20,
            admin_port=admin_port,
        )
        async with (
            serving(settings) as client,
            aiohttp.ClientSession() as session,
            session.ws_connect(client.rpc.url.replace("http", "ws") + "/ws") as socket,
        ):
            await socket.send_json({"jsonrpc": "2.0", "id": 1, "method": "eth_subscribe", "params": ["bundles"]})
            await waiting_operation(own_chain, client)
            await mine_strangers(own_chain, client, 3)
            heard: list[str] = []
            while "rerouted" not in heard:
                news = await socket.receive_json(timeout=20)
                heard.append(news.get("params", {}).get("result", {}).get("status", ""))
            async with session.get(f"{admin_url}/metrics") as answer:
                text = await answer.text()
    name = first.url
    assert f'seawall_bundler_endpoint_total{{endpoint="{name}",outcome="censored"}} 1.0' in text
    assert 'seawall_bundler_bundles_total{outcome="censored"} 1.0' in text
    assert heard[-3:] == ["sent", "censored", "rerouted"]


# -- the doctor -----------------------------------------------------------------------------------------------------------


async def test_the_doctor_tries_every_endpoint_and_hands_nothing_in(own_chain: Chain, tmp_path: Path) -> None:
    async with Relay.start(own_chain.rpc) as good, Relay.start(own_chain.rpc, conditional=False) as plain:
        settings = settings_for(
            own_chain,
            tmp_path,
            submission=(
                private(good, conditional=True),
                private(plain, conditional=True),
                Endpoint("http://127.0.0.1:1"),
            ),
        )
        found = [one for one in await examine(replace(settings, safe=False)) if one.what == "endpoint"]
    assert [one.level for one in found] == ["ok", "warning", "failed"]
    assert "private, takes conditions" in found[0].text
    assert all(params[0] == "0x" for _, params in [*good.sends, *plain.sends])
