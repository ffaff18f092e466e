// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {AccountERC7579Hooked} from "@openzeppelin/contracts/account/extensions/draft-AccountERC7579Hooked.sol";
import {IEntryPoint} from "@openzeppelin/contracts/interfaces/IERC4337.sol";

/// OpenZeppelin's hooked ERC-7579 account as it is: the account of others that our modules must work on.
contract ForeignAccount is AccountERC7579Hooked {
    IEntryPoint private immutable ENTRY_POINT;

    constructor(IEntryPoint entryPoint_) {
        ENTRY_POINT = entryPoint_;
    }

    function entryPoint() public view override returns (IEntryPoint) {
        return ENTRY_POINT;
    }
}
