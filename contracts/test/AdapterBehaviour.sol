// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {Execution} from "@openzeppelin/contracts/interfaces/draft-IERC7579.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IVenueAdapter} from "../src/interfaces/IVenueAdapter.sol";
import {Assertions} from "./Vm.sol";

/// What a guard relies on in every venue adapter (docs/adapters.md). An adapter's test inherits it and says what a holder with a position is.
abstract contract AdapterBehaviour is Assertions {
    /// @param whole absolute size of the holder's position in `market`. @param smallest least size that can be reduced.
    /// @param limit a price that the venue would fill at, `venuePrice` for one. @param targets the venue's contracts and the tokens it trades.
    /// @param unknown a market of the right form that is not the venue's.
    struct Subject {
        IVenueAdapter adapter;
        address holder;
        bytes market;
        uint256 whole;
        uint256 smallest;
        uint256 limit;
        address[] targets;
        bytes unknown;
    }

    /// The adapter under test, and a holder with a position.
    function _subject() internal virtual returns (Subject memory);

    /// Take the holder's position away.
    function _empty() internal virtual;

    function test_behaviour_a_position_has_a_size_a_value_and_a_price() public {
        Subject memory s = _subject();
        IVenueAdapter.Position memory p = s.adapter.position(s.holder, s.market);
        eq(uint256(p.size < 0 ? -p.size : p.size), s.whole, "size");
        isTrue(p.notional != 0, "notional");
        isTrue(s.adapter.venuePrice(s.market) != 0, "price");
    }

    function test_behaviour_nothing_held_is_no_position_and_cannot_be_reduced() public {
        Subject memory s = _subject();
        _empty();
        IVenueAdapter.Position memory p = s.adapter.position(s.holder, s.market);
        eq(p.size, 0, "size");
        eq(p.notional + p.debt, 0, "notional and debt");
        isTrue(!_answers(s, s.smallest, s.limit), "reduced what is not there");
    }

    function testFuzz_behaviour_any_part_is_reduced_by_calls_to_the_venue_and_its_tokens_alone(uint256 size) public {
        Subject memory s = _subject();
        size = bound(size, s.smallest, s.whole);
        Execution[] memory calls = s.adapter.reduceCalls(s.holder, s.market, size, s.limit);
        isTrue(calls.length != 0, "no calls");
        for (uint256 i = 0; i < calls.length; ++i) {
            eq(calls[i].value, 0, "value");
            isTrue(_isOne(s.targets, calls[i].target), "a call to a stranger");
            bytes memory data = calls[i].callData;
            isTrue(data.length >= 4, "no function");
            if (bytes4(data) != IERC20.approve.selector) continue;
            (address spender, uint256 amount) = _arguments(data);
            isTrue(_isOne(s.targets, spender), "an allowance to a stranger");
            isTrue(amount != type(uint256).max, "an allowance without bound");
        }
    }

    function testFuzz_behaviour_nothing_and_more_than_all_are_refused(uint256 size) public {
        Subject memory s = _subject();
        size = bound(size, s.whole + 1, type(uint128).max);
        isTrue(!_answers(s, size, s.limit), "more than all");
        isTrue(!_answers(s, 0, s.limit), "nothing");
        isTrue(_answers(s, s.whole, s.limit), "all of it is fine");
    }

    function test_behaviour_the_limit_binds_the_calls_and_none_is_refused() public {
        Subject memory s = _subject();
        bytes32 loose = keccak256(abi.encode(s.adapter.reduceCalls(s.holder, s.market, s.whole, s.limit)));
        bytes32 tight =
            keccak256(abi.encode(s.adapter.reduceCalls(s.holder, s.market, s.whole, s.limit + s.limit / 10)));
        isTrue(loose != tight, "the limit is not in the calls");
        isTrue(!_answers(s, s.whole, 0), "no limit");
    }

    function test_behaviour_a_market_that_is_not_the_venues_is_refused_everywhere() public {
        Subject memory s = _subject();
        bytes[3] memory unknown = [s.unknown, bytes(""), bytes.concat(s.market, hex"00")];
        for (uint256 i = 0; i < unknown.length; ++i) {
            s.market = unknown[i];
            isTrue(!_answers(s, s.smallest, s.limit), "reduceCalls");
            isTrue(!_asks(s.adapter, abi.encodeCall(s.adapter.position, (s.holder, s.market))), "position");
            isTrue(!_asks(s.adapter, abi.encodeCall(s.adapter.venuePrice, (s.market))), "venuePrice");
        }
    }

    function test_behaviour_the_adapter_has_no_storage_of_its_own() public {
        Subject memory s = _subject();
        vm.record();
        s.adapter.position(s.holder, s.market);
        s.adapter.venuePrice(s.market);
        s.adapter.reduceCalls(s.holder, s.market, s.whole, s.limit);
        (bytes32[] memory reads, bytes32[] memory writes) = vm.accesses(address(s.adapter));
        eq(reads.length + writes.length, 0, "slots");
    }

    function _answers(Subject memory s, uint256 size, uint256 limit) private view returns (bool) {
        return _asks(s.adapter, abi.encodeCall(s.adapter.reduceCalls, (s.holder, s.market, size, limit)));
    }

    function _asks(IVenueAdapter adapter, bytes memory question) private view returns (bool success) {
        (success,) = address(adapter).staticcall(question);
    }

    function _isOne(address[] memory some, address one) private pure returns (bool) {
        for (uint256 i = 0; i < some.length; ++i) {
            if (some[i] == one) return true;
        }
        return false;
    }

    function _arguments(bytes memory data) private pure returns (address spender, uint256 amount) {
        assembly ("memory-safe") {
            spender := mload(add(data, 0x24))
            amount := mload(add(data, 0x44))
        }
    }
}
