// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {IEquityBreaker} from "../src/interfaces/IEquityBreaker.sol";
import {EquityBreakerBase} from "./EquityBreakerBase.sol";

/// What measuring adds to a transfer whose accounts and slots were not touched before in the transaction.
contract EquityBreakerGasTest is EquityBreakerBase {
    function _subject() internal view override returns (address) {
        return address(account);
    }

    function _configured(uint256 assets) private {
        IEquityBreaker.Config memory config = _breakerConfig();
        IEquityBreaker.Asset[] memory listed = new IEquityBreaker.Asset[](assets);
        for (uint256 i = 0; i < assets; ++i) {
            listed[i] = config.assets[i];
            listed[i].oracle.sequencerFeed = address(0);
        }
        (config.assets, config.sources) = (listed, new address[](0));
        bytes memory data = abi.encodeCall(breaker.configure, (config));
        _execute(subject, address(breaker), 0, abi.encodeCall(breaker.announce, (data)));
        _later(CHANGE_DELAY);
        _execute(subject, address(breaker), 0, data);
        _execute(subject, address(dollar), 0, abi.encodeCall(ERC20.transfer, (address(0xBEEF), 1)));
    }

    function _coldGas() private returns (uint256 used) {
        bytes memory data = _executeData(address(dollar), 0, abi.encodeCall(ERC20.transfer, (address(0xBEEF), 1)));
        address config = address(uint160(uint256(vm.load(address(breaker), keccak256(abi.encode(subject, 0))))));
        isTrue(config.code.length != 0, "the configuration's code");
        address[8] memory touched = [
            subject,
            address(hook),
            address(breaker),
            config,
            address(dollar),
            address(asset),
            address(dollarFeed),
            address(assetFeed)
        ];
        for (uint256 i = 0; i < touched.length; ++i) {
            vm.cool(touched[i]);
        }
        vm.prank(address(ENTRY_POINT));
        used = gasleft();
        (bool success,) = subject.call(data);
        used -= gasleft();
        isTrue(success, "sent");
    }

    function test_gas_of_measuring_equity() public {
        _configured(1);
        uint256 one = _coldGas();
        _configured(2);
        uint256 two = _coldGas();
        bytes memory drop = abi.encodeCall(hook.setBreaker, (address(0)));
        _execute(subject, address(hook), 0, abi.encodeCall(hook.announce, (drop)));
        _later(CHANGE_DELAY);
        _execute(subject, address(hook), 0, drop);
        uint256 none = _coldGas();
        vm.snapshotValue("hook", "RiskAccount: added by the equity breaker with one priced asset", one - none);
        vm.snapshotValue("hook", "RiskAccount: added by each further priced asset", two - one);
    }
}
