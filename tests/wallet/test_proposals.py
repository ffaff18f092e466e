"""Orders that need a quorum: proposed, approved, judged anew and sent, on the real devnet with real services."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from contracts.eoa import Eoa
from contracts.errors import BadInput, PolicyRefused, RpcError, SetupError
from contracts.types import checksum
from policies.attestation import (
    SignedApproval,
    decode_quorum_envelope,
    encode_attested_envelope,
    encode_quorum_envelope,
)
from tests.wallet.cli_rig import Machine
from tests.wallet.trading_floor import POLICY, Floor, Trader, floor_in
from wallet.proposals import (
    Proposal,
    approval_text,
    approve,
    parse_approval,
    propose,
    read_proposal,
    rejudge,
    send,
    standing,
    write_proposal,
)

ASKING = POLICY.replace(
    "  - {id: slippage",
    "  - {id: large, metric: leverage, max: 2, action: require_signers, approval: desk}\n  - {id: slippage",
).replace("exits:\n", "approvals:\n  - {id: desk, signers: [guardian, guardian_2, guardian_3], quorum: 2}\nexits:\n")


@pytest.fixture(scope="module")
async def floor(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Floor]:
    async with floor_in(tmp_path_factory.mktemp("floor")) as found:
        yield found


async def proposed(floor: Floor, folder: Path, *, sponsored: bool = True) -> tuple[Trader, Proposal]:
    """An account that trades at 1x already, and the proposal to go on to 3x."""
    trader = await floor.trader(folder, policy=ASKING, sponsored=sponsored)
    sent = await trader.signer.submit(await trader.opening("1"))
    assert (await trader.signer.bundler.wait(sent.user_op_hash)).success
    proposal, judgement = await propose(trader.signer, await trader.opening("1.9", collateral=0), "more")
    assert judgement.decision.outcome == "require_signers"
    return trader, proposal


def people(floor: Floor) -> list[Eoa]:
    return [floor.net.accounts.guardian, floor.net.accounts.guardian2, floor.net.accounts.guardian3]


async def approved(trader: Trader, proposal: Proposal, signers: list[Eoa], *, hours: int = 24) -> Proposal:
    judgement = await rejudge(trader.signer, proposal)
    given = [approve(proposal, judgement, one, hours * 3600) for one in signers]
    return proposal.with_approvals(given, judgement.now_s)


@pytest.mark.parametrize("sponsored", [True, False])
async def test_what_two_of_three_have_approved_is_sent_and_nobody_else_was_held_up(
    floor: Floor, tmp_path: Path, sponsored: bool
) -> None:
    trader, proposal = await proposed(floor, tmp_path, sponsored=sponsored)
    # Others go first while it waits.
    meanwhile = await trader.signer.submit(await trader.opening("0.05", collateral=0))
    assert (await trader.signer.bundler.wait(meanwhile.user_op_hash)).success
    whole = await approved(trader, proposal, people(floor)[:2])
    sent = await send(trader.signer, whole)
    receipt = await trader.signer.bundler.wait(sent.user_op_hash)
    assert receipt.success, receipt.reason.hex()
    assert receipt.sponsored is sponsored
    envelope = decode_quorum_envelope(sent.op.signature)
    assert [one.signer for one in envelope.approvals] == sorted(one.address for one in people(floor)[:2])
    assert envelope.attested.attestations[0].decision == 2
    # Its attestation is used up, so that the next order on the usual lane is judged as if it had never been.
    after = await trader.signer.submit(await trader.closing())
    assert (await trader.signer.bundler.wait(after.user_op_hash)).success


async def test_without_enough_approvals_nothing_is_signed_and_who_is_missing_is_named(
    floor: Floor, tmp_path: Path
) -> None:
    trader, proposal = await proposed(floor, tmp_path)
    before = await floor.received()
    first, second, third = people(floor)
    for given in ([], [first]):
        whole = await approved(trader, proposal, given)
        with pytest.raises(PolicyRefused, match=rf"'desk' has {len(given)} of 2 approvals.*{checksum(second.address)}"):
            await send(trader.signer, whole)
    stranger = await approved(trader, proposal, [first, floor.net.accounts.keeper])
    with pytest.raises(PolicyRefused, match="1 of 2"):
        await send(trader.signer, stranger)
    again = replace(proposal, approvals=(await approved(trader, proposal, [third])).approvals * 2)
    with pytest.raises(PolicyRefused, match="1 of 2"):
        await send(trader.signer, again)
    assert await floor.received() == before


async def test_the_chain_itself_refuses_it_without_the_quorum(floor: Floor, tmp_path: Path) -> None:
    trader, proposal = await proposed(floor, tmp_path, sponsored=False)
    whole = await approved(trader, proposal, people(floor)[:2])
    sent_signature: list[bytes] = []

    class Kept(type(trader.signer.bundler)):  # type: ignore[misc]
        """The bundler's client, stopped before it sends: engine and owner have signed."""

        async def send(self, op: object) -> bytes:
            sent_signature.append(op.signature)  # type: ignore[attr-defined]
            raise BadInput("kept")

    bundler = Kept(trader.signer.bundler.rpc, trader.signer.bundler.entry_point)
    with pytest.raises(BadInput, match="kept"):
        await send(replace(trader.signer, bundler=bundler), whole)
    envelope = decode_quorum_envelope(sent_signature[0])
    packed = [
        a.engine + a.intent_hash + a.facts_hash + bytes([a.decision]) + a.quorum_id + a.valid_after_s.to_bytes(6)
        + a.valid_until_s.to_bytes(6) + a.signature
        for a in envelope.attested.attestations
    ]  # fmt: skip
    owner = envelope.attested.owner_signature
    assert encode_quorum_envelope(owner, packed, ["desk"], envelope.approvals) == sent_signature[0]
    forged = SignedApproval(envelope.approvals[1].signer, 0, envelope.approvals[0].signature)
    for signature in (
        encode_attested_envelope(owner, packed),
        encode_quorum_envelope(owner, packed, ["desk"], envelope.approvals[:1]),
        encode_quorum_envelope(owner, packed, ["desk"], [envelope.approvals[0], forged]),
        encode_quorum_envelope(owner, packed, ["board"], envelope.approvals),
    ):
        with pytest.raises(RpcError, match=r"AA24|signature"):
            await trader.signer.bundler.send(proposal.op.replace(signature=signature))
    honest = await trader.signer.bundler.send(proposal.op.replace(signature=sent_signature[0]))
    assert (await trader.signer.bundler.wait(honest)).success


async def test_it_is_judged_anew_when_it_is_sent(floor: Floor, tmp_path: Path) -> None:
    trader, proposal = await proposed(floor, tmp_path)
    whole = await approved(trader, proposal, people(floor)[:2])
    another, _ = await propose(trader.signer, await trader.opening("1.5", collateral=0), "first")
    sent = await send(trader.signer, await approved(trader, another, people(floor)[1:]))
    assert (await trader.signer.bundler.wait(sent.user_op_hash)).success
    with pytest.raises(PolicyRefused, match="leverage"):
        await send(trader.signer, whole)
    with pytest.raises(BadInput, match="sent already"):
        await send(trader.signer, await approved_blindly(trader, another, people(floor)[1:]))


async def approved_blindly(trader: Trader, proposal: Proposal, signers: list[Eoa]) -> Proposal:
    now_s = int((await trader.signer.account.rpc.block())["timestamp"], 16)
    until_s = now_s + 3600
    given = [SignedApproval(one.address, until_s, one.sign_hash(proposal.subject.digest(until_s))) for one in signers]
    return proposal.with_approvals(given, now_s)


async def test_an_approval_ends_and_binds_one_proposal_only(floor: Floor, tmp_path: Path) -> None:
    trader, proposal = await proposed(floor, tmp_path)
    whole = await approved(trader, proposal, people(floor)[:2], hours=1)
    other, _ = await propose(trader.signer, await trader.opening("1.9", collateral=0), "the same again")
    with pytest.raises(BadInput, match="not one of this proposal"):
        other.with_approvals(whole.approvals, 0)
    with pytest.raises(PolicyRefused, match="0 of 2"):
        await send(trader.signer, replace(other, approvals=whole.approvals))
    late = max(one.valid_until_s for one in whole.approvals)
    with pytest.raises(BadInput, match="its time is over"):
        proposal.with_approvals(whole.approvals, late)


async def test_what_nobody_needs_to_approve_and_what_is_denied_are_no_proposals(floor: Floor, tmp_path: Path) -> None:
    trader = await floor.trader(tmp_path, policy=ASKING)
    with pytest.raises(BadInput, match="without --propose"):
        await propose(trader.signer, await trader.opening("1"), "small")
    with pytest.raises(PolicyRefused, match="leverage"):
        await propose(trader.signer, await trader.opening("5"), "too large for anybody")
    with pytest.raises(PolicyRefused, match="needs more signers"):
        await trader.signer.submit(await trader.opening("2.5"))


async def test_a_proposal_of_elsewhere_or_of_another_policy_is_not_judged(floor: Floor, tmp_path: Path) -> None:
    trader, proposal = await proposed(floor, tmp_path)
    for changed, what in (
        (replace(proposal, chain_id=1), "chain 1"),
        (replace(proposal, policy_id=bytes(32)), "policy 0x00"),
        (replace(proposal, risk_validator=bytes(20)), "RiskValidator"),
        (replace(proposal, op=proposal.op.replace(sender=b"\x01" * 20)), "account"),
    ):
        with pytest.raises(BadInput, match=what):
            await rejudge(trader.signer, changed)
    with pytest.raises(BadInput, match="set anew"):
        await rejudge(trader.signer, replace(proposal, policy_epoch=proposal.policy_epoch + 1))


async def test_a_file_holds_all_of_it_and_what_was_changed_is_noticed(floor: Floor, tmp_path: Path) -> None:
    trader, proposal = await proposed(floor, tmp_path)
    whole = await approved(trader, proposal, people(floor)[:1])
    path = tmp_path / "order.json"
    write_proposal(path, whole)
    assert read_proposal(path) == whole
    assert (
        standing(trader.signer, whole, await rejudge(trader.signer, whole)).lacking[0].startswith("quorum 'desk' has 1")
    )
    fields = json.loads(path.read_text())
    for name, value, complaint in (
        ("userOp", {**fields["userOp"], "callGasLimit": "0x1"}, "changed after"),
        ("userOp", {**fields["userOp"], "nonce": "nonsense"}, "damaged"),
        ("seawallProposal", 2, "version"),
        ("policyEpoch", True, "whole number"),
        ("approvals", ["0x12"], "SIGNER:VALID_UNTIL"),
        ("approvals", None, "damaged"),
    ):
        path.write_text(json.dumps({**fields, name: value}))
        with pytest.raises(BadInput, match=complaint):
            read_proposal(path)
    path.write_text("[" * 100_000)
    with pytest.raises(BadInput, match="not JSON"):
        read_proposal(path)
    with pytest.raises(SetupError, match="cannot be read"):
        read_proposal(tmp_path / "nowhere.json")
    with pytest.raises(SetupError, match="cannot be written"):
        write_proposal(tmp_path / "no folder" / "x.json", whole)


@pytest.mark.parametrize("text", ["", "a:b:c", "0x" + "11" * 20 + ":5:0x12", "0x" + "11" * 20 + ":-5:0x" + "00" * 65])
def test_a_line_that_is_no_approval_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        parse_approval(text)


def test_a_line_comes_back_as_it_went() -> None:
    one = SignedApproval(b"\x11" * 20, 12345, b"\x22" * 65)
    assert parse_approval(approval_text(one)) == one


async def test_the_command_line_carries_an_order_through_two_signers(floor: Floor, tmp_path: Path) -> None:
    machine = Machine.set_up(floor, tmp_path)
    (tmp_path / "policy.yaml").write_text(ASKING)
    await machine.account()
    order = ("trade", "open", "--side", "long", "--collateral", "10000", "--notional")
    assert (await machine.run(*order, "10000", "--yes")).code == 0
    more = ("trade", "open", "--side", "long", "--notional", "15000")
    refused = await machine.run(*more, "--yes")
    assert refused.code == 5
    assert "ask them with --propose FILE" in refused.err
    written = await machine.run(*more, "--propose", "order.json")
    assert written.code == 0, written.err
    assert "has 0 of 2 approvals" in written.out
    early = await machine.run("proposal", "send", "order.json", "--yes")
    assert early.code == 5
    assert "0 of 2 approvals" in early.err
    seatless = await machine.run("proposal", "sign", "order.json", "--key", "keeper", "--yes")
    assert seatless.code != 0
    assert "no seat" in seatless.err
    first = await machine.run("proposal", "sign", "order.json", "--key", "guardian", "--yes", "--json")
    assert first.code == 0, first.err
    assert not first.data["ready"]
    # The second signer got a copy of his own, and hands back the line.
    (tmp_path / "copy.json").write_text((tmp_path / "order.json").read_text())
    second = await machine.run("proposal", "sign", "copy.json", "--key", "guardian-2", "--yes", "--json")
    assert second.data["ready"]
    shown = await machine.run("proposal", "show", "order.json", "--json")
    assert len(shown.data["approvedBy"]) == 1
    done = await machine.run("proposal", "send", "order.json", "--approval", second.data["approval"], "--yes", "--json")
    assert done.code == 0, done.err
    assert done.data["block"] > 0
    (position,) = (await machine.run("account", "show", "--json")).data["positions"]
    assert float(position["notional"]) == pytest.approx(25_000, rel=0.02)
    again = await machine.run("proposal", "send", "order.json", "--yes")
    assert "sent already" in again.err
