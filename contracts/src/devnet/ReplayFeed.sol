// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";

/// @title A Chainlink-style feed that a replay drives
/// @notice For devnets and back-tests, never for value. `startedAt` is when the answer last changed, so that the same contract serves as an
/// L2 sequencer up-time feed (0 = up, 1 = down).
contract ReplayFeed is Ownable {
    error NotPusher(address caller);
    error NoData();
    error OutOfOrder(uint256 updatedAt, uint256 previous);

    event AnswerUpdated(int256 indexed current, uint256 indexed roundId, uint256 updatedAt);
    event PusherSet(address indexed pusher, bool enabled);

    struct Round {
        int192 answer;
        uint64 updatedAt;
        uint64 startedAt;
    }

    uint8 public immutable decimals;
    uint256 public constant version = 1;
    string public description;
    uint80 public latestRound;
    mapping(address pusher => bool) public isPusher;
    mapping(uint80 roundId => Round) private _rounds;

    /// @param decimals_ 8 for prices, 0 for a sequencer feed.
    constructor(address owner_, uint8 decimals_, string memory description_) Ownable(owner_) {
        decimals = decimals_;
        description = description_;
    }

    /// @notice Allow or forbid a pusher beside the owner.
    function setPusher(address pusher, bool enabled) external onlyOwner {
        isPusher[pusher] = enabled;
        emit PusherSet(pusher, enabled);
    }

    /// @notice Begin a new round. Times never go back.
    /// @param updatedAt unix seconds of the answer.
    function push(int256 answer, uint256 updatedAt) external {
        if (msg.sender != owner() && !isPusher[msg.sender]) revert NotPusher(msg.sender);
        Round memory previous = _rounds[latestRound];
        if (updatedAt < previous.updatedAt || updatedAt == 0) revert OutOfOrder(updatedAt, previous.updatedAt);
        bool changed = latestRound == 0 || answer != previous.answer;
        uint80 roundId = ++latestRound;
        _rounds[roundId] = Round({
            answer: int192(answer),
            updatedAt: uint64(updatedAt),
            startedAt: changed ? uint64(updatedAt) : previous.startedAt
        });
        emit AnswerUpdated(answer, roundId, updatedAt);
    }

    /// @notice As Chainlink's.
    function latestRoundData()
        external
        view
        returns (uint80 roundId, int256 answer, uint256 startedAt, uint256 updatedAt, uint80 answeredInRound)
    {
        return getRoundData(latestRound);
    }

    /// @notice The answer alone, as Aave's oracle reads it.
    function latestAnswer() external view returns (int256 answer) {
        (, answer,,,) = getRoundData(latestRound);
    }

    /// @notice As Chainlink's.
    function getRoundData(uint80 id)
        public
        view
        returns (uint80 roundId, int256 answer, uint256 startedAt, uint256 updatedAt, uint80 answeredInRound)
    {
        Round memory round = _rounds[id];
        if (round.updatedAt == 0) revert NoData();
        return (id, round.answer, round.startedAt, round.updatedAt, id);
    }
}
