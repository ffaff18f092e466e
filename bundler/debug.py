"""`debug_bundler_*`: what the public conformance suite needs, and nothing that belongs on a public address.

Source: eth-infinitism/bundler-spec, "debug"; served only with the setting `debug`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from bundler import simulation
from bundler.checks import entry_point_of
from bundler.reputation import Counts
from bundler.service import Bundler
from contracts.errors import InvalidFields
from contracts.types import checksum, parse_address, parse_quantity

Method = Callable[[Sequence[Any]], Awaitable[Any]]


def debug_methods(bundler: Bundler) -> dict[str, tuple[Method, int, int]]:
    """The method table of the namespace: handler, fewest and most parameters."""
    debug = _Debug(bundler)
    return {
        "debug_bundler_clearState": (debug.clear_state, 0, 0),
        "debug_bundler_clearMempool": (debug.clear_mempool, 0, 0),
        "debug_bundler_clearReputation": (debug.clear_reputation, 0, 0),
        "debug_bundler_dumpMempool": (debug.dump_mempool, 0, 1),
        "debug_bundler_sendBundleNow": (debug.send_bundle_now, 0, 0),
        "debug_bundler_setBundlingMode": (debug.set_bundling_mode, 1, 1),
        "debug_bundler_setReputation": (debug.set_reputation, 1, 2),
        "debug_bundler_dumpReputation": (debug.dump_reputation, 0, 1),
        "debug_bundler_getStakeStatus": (debug.stake_status, 2, 2),
    }


class _Debug:
    def __init__(self, bundler: Bundler) -> None:
        self._bundler = bundler

    async def clear_state(self, params: Sequence[Any]) -> str:  # noqa: ARG002 (one signature for all)
        await self._bundler.clear(reputation=True)
        return "ok"

    async def clear_mempool(self, params: Sequence[Any]) -> str:  # noqa: ARG002
        await self._bundler.clear(reputation=False)
        return "ok"

    async def clear_reputation(self, params: Sequence[Any]) -> str:  # noqa: ARG002
        self._bundler.reputation.clear()
        return "ok"

    async def dump_mempool(self, params: Sequence[Any]) -> list[dict[str, Any]]:
        """Pending operations in order of arrival, with checksummed addresses."""
        wanted = parse_address(params[0], "entryPoint") if params else None
        return [
            _checksummed(entry.op.to_rpc())
            | ({"eip7702Auth": entry.authorization.to_rpc()} if entry.authorization else {})
            for entry in self._bundler.pool
            if wanted is None or entry.entry_point.address == wanted
        ]

    async def send_bundle_now(self, params: Sequence[Any]) -> dict[str, Any]:  # noqa: ARG002
        """Answers when the bundle is included, or is sent and not mined within 5 s."""
        return {"userOpHashes": ["0x" + op_hash.hex() for op_hash in await self._bundler.send_now()]}

    async def set_bundling_mode(self, params: Sequence[Any]) -> str:
        if params[0] not in ("manual", "auto"):
            raise InvalidFields(f"the bundling mode is 'manual' or 'auto', got {params[0]!r:.40}")
        self._bundler.manual = params[0] == "manual"
        return "ok"

    async def set_reputation(self, params: Sequence[Any]) -> str:
        if not isinstance(params[0], list) or not all(isinstance(item, dict) for item in params[0]):
            raise InvalidFields("the first parameter is a list of {address, opsSeen, opsIncluded}")
        for item in params[0]:
            counts = Counts(
                parse_quantity(item.get("opsSeen", "0x0"), "opsSeen", bits=63),
                parse_quantity(item.get("opsIncluded", "0x0"), "opsIncluded", bits=63),
            )
            self._bundler.reputation.set(parse_address(item.get("address"), "address"), counts)
        return "ok"

    async def dump_reputation(self, params: Sequence[Any]) -> list[dict[str, str]]:  # noqa: ARG002
        return [
            {
                "address": checksum(address),
                "opsSeen": hex(counts.seen),
                "opsIncluded": hex(counts.included),
                "status": hex(self._bundler.reputation.standing(address)),
            }
            for address, counts in self._bundler.reputation.all().items()
        ]

    async def stake_status(self, params: Sequence[Any]) -> dict[str, Any]:
        settings = self._bundler.settings
        address = parse_address(params[0], "address")
        entry_point = entry_point_of(parse_address(params[1], "entryPoint"), settings)
        stake = (await simulation.read_stakes(self._bundler.rpc, entry_point, [address]))[address]
        return {
            "stakeInfo": {
                "addr": checksum(address),
                "stake": str(stake.stake_wei),
                "unstakeDelaySec": str(stake.unstake_delay_s),
            },
            "isStaked": stake.suffices(settings.min_stake_wei, settings.min_unstake_delay_s),
        }


def _checksummed(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        name: checksum(parse_address(value, name))
        if name in ("sender", "factory", "paymaster") and value != "0x7702"
        else value
        for name, value in fields.items()
    }
