// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {Ownable2Step} from "@openzeppelin/contracts/access/Ownable2Step.sol";
import {Paymaster} from "@openzeppelin/contracts/account/paymaster/Paymaster.sol";
import {PaymasterERC20} from "@openzeppelin/contracts/account/paymaster/extensions/PaymasterERC20.sol";
import {
    PaymasterERC20Guarantor
} from "@openzeppelin/contracts/account/paymaster/extensions/PaymasterERC20Guarantor.sol";
import {ERC4337Utils} from "@openzeppelin/contracts/account/utils/ERC4337Utils.sol";
import {IEntryPoint, PackedUserOperation} from "@openzeppelin/contracts/interfaces/IERC4337.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {OracleConfig} from "../interfaces/IStopLoss.sol";
import {OracleWindow} from "../libraries/OracleWindow.sol";
import {OwnerLib} from "../libraries/OwnerLib.sol";

/// @title Gas for tokens, at the oracle's price
/// @notice Takes the most that an operation can cost from the sender (or from the credit of a guarantor who signed for him) before it runs and gives
/// back what it did not cost. The price is that of two guarded feeds and a bounded surcharge; the sender says the worst price he pays. A feed that is stale,
/// not positive or out of bounds and a sequencer that is down refuse the operation.
///
/// paymasterData = token (20) || worst tokens per 1e18 wei (32), and with a guarantor also || guarantor (20) || validUntil (6) ||
/// validAfter (6) || signature (65) over Guarantee(...) under the EIP-712 domain ("Seawall ERC20Paymaster", "1", chainId, this).
/// @dev Validation moves tokens and reads the feeds' storage: ERC-7562 [STO-031, STO-033] wants the paymaster staked. A guarantor's tokens are here
/// beforehand, as credit: his balance at the token belongs to no entity of the operation, and no mempool lets validation write it. Times are answered as the
/// window of the validation data, as TIMESTAMP is forbidden there.
contract ERC20Paymaster is PaymasterERC20Guarantor, EIP712, Ownable2Step {
    using SafeERC20 for IERC20;

    /// The surcharge is above `MAX_SURCHARGE_BPS`, or the oracle has no feed, no heartbeat or no bounds.
    error InvalidTerms();
    /// More than there is: of a guarantor's credit, or of what was earned.
    error InsufficientCredit(uint256 available);

    /// What gas costs in `token`. `surchargeBps` on top of the oracles' price; `units` 10 ** decimals of the token; zero: not taken.
    struct Terms {
        OracleConfig oracle;
        uint64 units;
        uint16 surchargeBps;
    }

    event TermsSet(IERC20 indexed token, Terms terms);
    event NativeOracleSet(OracleConfig oracle);
    /// What a sender did not pay back of an operation; its `UserOperationSponsored` follows at once.
    event GuaranteeUnpaid(IERC20 indexed token, address indexed guarantor, address indexed sender, uint256 lost);
    event CreditAdded(IERC20 indexed token, address indexed guarantor, uint256 amount);
    event CreditWithdrawn(IERC20 indexed token, address indexed guarantor, address to, uint256 amount);

    uint256 public constant BPS = 10_000;
    /// No owner can charge more than a fifth above the oracles' price.
    uint16 public constant MAX_SURCHARGE_BPS = 2000;
    /// What `postOp` needs at most, refunds to two parties included, and what an operation must therefore grant it.
    uint256 public constant MIN_POST_OP_GAS = 120_000;
    uint256 private constant PLAIN_LENGTH = 20 + 32;
    uint256 private constant GUARANTEED_LENGTH = PLAIN_LENGTH + 20 + 6 + 6 + 65;

    bytes32 private constant GUARANTEE_TYPEHASH = keccak256(
        "Guarantee(address guarantor,address sender,uint256 nonce,bytes32 initCodeHash,bytes32 callDataHash,bytes32 accountGasLimits,"
        "uint256 preVerificationGas,bytes32 gasFees,uint256 paymasterGasLimits,address token,uint256 maxTokenPerNative,uint48 validUntil,"
        "uint48 validAfter)"
    );

    IEntryPoint private immutable ENTRY_POINT;
    OracleConfig private _native;
    mapping(IERC20 token => Terms) private _terms;
    /// @notice What a guarantor can still advance.
    mapping(IERC20 token => mapping(address guarantor => uint256)) public creditOf;
    /// All credits and what is advanced at the moment: never the owner's.
    mapping(IERC20 token => uint256) private _credits;

    constructor(IEntryPoint entryPoint_, address owner_, OracleConfig memory native)
        EIP712("Seawall ERC20Paymaster", "1")
        Ownable(owner_)
    {
        ENTRY_POINT = entryPoint_;
        _setNativeOracle(native);
    }

    /// @inheritdoc Paymaster
    function entryPoint() public view override returns (IEntryPoint) {
        return ENTRY_POINT;
    }

    // ------------------------------------------------------------------ owner

    /// @notice Take `token` on these terms; with `units` zero no more. Only tokens that move exactly what they are told to: of one that arrives with
    /// less every operation is refused, and one that takes a fee from whoever sends would take it from each refund.
    function setTerms(IERC20 token, Terms calldata terms) external onlyOwner {
        if (terms.units != 0) {
            if (terms.surchargeBps > MAX_SURCHARGE_BPS) revert InvalidTerms();
            _requireSound(terms.oracle);
        }
        _terms[token] = terms;
        emit TermsSet(token, terms);
    }

    /// @notice Change the price of the native token.
    function setNativeOracle(OracleConfig calldata oracle) external onlyOwner {
        _setNativeOracle(oracle);
    }

    /// @notice Take tokens that were earned, never a guarantor's; the maximum of `amount` means all.
    function withdrawTokens(IERC20 token, address to, uint256 amount) external onlyOwner {
        uint256 earned = token.balanceOf(address(this)) - _credits[token];
        if (amount == type(uint256).max) amount = earned;
        if (amount > earned) revert InsufficientCredit(earned);
        _withdrawTokens(token, to, amount);
    }

    /// @notice Add the sent value to the deposit that operations are paid from.
    function deposit() external payable {
        _deposit(msg.value);
    }

    /// @notice Take from the deposit.
    function withdraw(address payable to, uint256 value) external onlyOwner {
        _withdraw(to, value);
    }

    /// @notice Lock the sent value as stake for at least `unstakeDelaySec`.
    function addStake(uint32 unstakeDelaySec) external payable onlyOwner {
        _addStake(msg.value, unstakeDelaySec);
    }

    /// @notice Begin to withdraw the stake.
    function unlockStake() external onlyOwner {
        _unlockStake();
    }

    /// @notice Withdraw the unlocked stake.
    function withdrawStake(address payable to) external onlyOwner {
        _withdrawStake(to);
    }

    // ------------------------------------------------------------------ guarantors

    /// @notice Lay in tokens of the caller's, from which operations are advanced that he signs for. Reverts when less arrives.
    /// @dev What was said is what counts, not what the balance grew by: a token that calls back could lay in more in between, and count it twice.
    function addCredit(IERC20 token, uint256 amount) external {
        uint256 before = token.balanceOf(address(this));
        token.safeTransferFrom(msg.sender, address(this), amount);
        uint256 added = token.balanceOf(address(this)) - before;
        if (added < amount) revert InsufficientCredit(added);
        creditOf[token][msg.sender] += amount;
        _credits[token] += amount;
        emit CreditAdded(token, msg.sender, amount);
    }

    /// @notice Take back the caller's own credit, as far as nothing is advanced from it; the maximum of `amount` means all.
    function withdrawCredit(IERC20 token, address to, uint256 amount) external {
        uint256 credit = creditOf[token][msg.sender];
        if (amount == type(uint256).max) amount = credit;
        if (amount > credit) revert InsufficientCredit(credit);
        creditOf[token][msg.sender] = credit - amount;
        _credits[token] -= amount;
        emit CreditWithdrawn(token, msg.sender, to, amount);
        token.safeTransfer(to, amount);
    }

    // ------------------------------------------------------------------ views

    /// @notice The terms of a token; `units` zero: not taken.
    function termsOf(IERC20 token) external view returns (Terms memory) {
        return _terms[token];
    }

    /// @notice The feed of the native token.
    function nativeOracle() external view returns (OracleConfig memory) {
        return _native;
    }

    /// @notice Token units per 1e18 wei, surcharge included and rounded up, and when that is valid. `problem`: selector of the error of
    /// `OracleGuard` that says why there is no price.
    function quote(IERC20 token)
        public
        view
        returns (uint256 tokenPerNative, uint48 validAfter, uint48 validUntil, bytes4 problem)
    {
        Terms memory terms = _terms[token];
        uint256 native;
        uint256 price;
        (native, validAfter, validUntil, problem) = OracleWindow.read(_native);
        if (problem != 0 || terms.units == 0) return (0, 0, 0, problem);
        uint48 after_;
        uint48 until;
        (price, after_, until, problem) = OracleWindow.read(terms.oracle);
        if (problem != 0) return (0, 0, 0, problem);
        if (after_ > validAfter) validAfter = after_;
        if (until < validUntil) validUntil = until;
        tokenPerNative = Math.mulDiv(native * (BPS + terms.surchargeBps), terms.units, price * BPS, Math.Rounding.Ceil);
    }

    /// @notice What a guarantor signs for `userOp`, whose paymaster fields but the signature must be final.
    function guaranteeHash(PackedUserOperation calldata userOp) public view returns (bytes32) {
        bytes calldata data = userOp.paymasterAndData[52:];
        uint256 gasLimits =
            ERC4337Utils.paymasterVerificationGasLimit(userOp) << 128 | ERC4337Utils.paymasterPostOpGasLimit(userOp);
        bytes memory operation = abi.encode(
            userOp.sender,
            userOp.nonce,
            keccak256(userOp.initCode),
            keccak256(userOp.callData),
            userOp.accountGasLimits,
            userOp.preVerificationGas,
            userOp.gasFees,
            gasLimits
        );
        bytes memory guarantee = abi.encode(
            address(bytes20(data[0:20])),
            uint256(bytes32(data[20:52])),
            uint48(bytes6(data[72:78])),
            uint48(bytes6(data[78:84]))
        );
        return _hashTypedDataV4(
            keccak256(bytes.concat(GUARANTEE_TYPEHASH, abi.encode(address(bytes20(data[52:72]))), operation, guarantee))
        );
    }

    // ------------------------------------------------------------------ inside

    /// @dev Never reverts for what a sender made up, so that gas can be estimated with a stub.
    function _fetchDetails(PackedUserOperation calldata userOp, bytes32)
        internal
        view
        override
        returns (uint256 validationData, IERC20 token, uint256 tokenPerNative)
    {
        bytes calldata data = userOp.paymasterAndData[52:];
        bool shaped = data.length == PLAIN_LENGTH || data.length == GUARANTEED_LENGTH;
        if (!shaped || ERC4337Utils.paymasterPostOpGasLimit(userOp) < MIN_POST_OP_GAS) {
            return (ERC4337Utils.SIG_VALIDATION_FAILED, token, 0);
        }
        token = IERC20(address(bytes20(data[0:20])));
        (uint256 price, uint48 validAfter, uint48 validUntil,) = quote(token);
        if (price == 0 || price > uint256(bytes32(data[20:52]))) {
            return (ERC4337Utils.SIG_VALIDATION_FAILED, token, 0);
        }
        bool signed = true;
        if (data.length == GUARANTEED_LENGTH) {
            (uint48 until, uint48 after_) = (uint48(bytes6(data[72:78])), uint48(bytes6(data[78:84])));
            // The top bit would make a time a block number on entry point v0.9.
            signed = (until | after_) & ERC4337Utils.BLOCK_RANGE_FLAG == 0
                && OwnerLib.isValidEcdsa(address(bytes20(data[52:72])), guaranteeHash(userOp), data[84:]);
            if (after_ > validAfter) validAfter = after_;
            if (until != 0 && until < validUntil) validUntil = until;
        }
        return (ERC4337Utils.packValidationData(signed, validAfter, validUntil), token, price);
    }

    /// @inheritdoc PaymasterERC20Guarantor
    function _fetchGuarantor(PackedUserOperation calldata userOp) internal pure override returns (address) {
        bytes calldata data = userOp.paymasterAndData[52:];
        return data.length == GUARANTEED_LENGTH ? address(bytes20(data[52:72])) : address(0);
    }

    /// @dev From a guarantor's credit, or from the sender: a token that arrives with less than was sent would make the deposit pay the difference.
    function _prefund(
        PackedUserOperation calldata userOp,
        bytes32 userOpHash,
        IERC20 token,
        uint256 tokenPrice,
        address prefunder_,
        uint256 prefundAmount_
    ) internal override returns (bool success, address prefunder, uint256 prefundAmount, bytes memory prefundContext) {
        address guarantor = _fetchGuarantor(userOp);
        if (guarantor != address(0)) {
            prefundAmount = Math.saturatingAdd(
                prefundAmount_, _erc20Cost(_guaranteedPostOpCost() * ERC4337Utils.maxFeePerGas(userOp), tokenPrice)
            );
            uint256 credit = creditOf[token][guarantor];
            // Who guarantees for himself would be taken for a sender who paid in tokens.
            if (credit < prefundAmount || guarantor == userOp.sender) return (false, guarantor, prefundAmount, "");
            creditOf[token][guarantor] = credit - prefundAmount;
            emit UserOperationGuaranteed(userOpHash, guarantor, prefundAmount);
            return (true, guarantor, prefundAmount, abi.encodePacked(userOp.sender));
        }
        uint256 before = token.balanceOf(address(this));
        (success, prefunder, prefundAmount, prefundContext) =
            super._prefund(userOp, userOpHash, token, tokenPrice, prefunder_, prefundAmount_);
        success = success && token.balanceOf(address(this)) - before >= prefundAmount;
    }

    /// @dev The sender pays a guarantor's advance back; what he does not pay is the guarantor's loss.
    function _refund(
        IERC20 token,
        uint256 tokenPrice,
        uint256 actualAmount,
        uint256 actualUserOpFeePerGas,
        address prefunder,
        uint256 prefundAmount,
        bytes calldata prefundContext
    ) internal override returns (bool refunded, uint256 effectiveAmount) {
        address sender = address(bytes20(prefundContext[prefundContext.length - 20:]));
        if (prefunder == sender) {
            return super._refund(
                token, tokenPrice, actualAmount, actualUserOpFeePerGas, prefunder, prefundAmount, prefundContext
            );
        }
        effectiveAmount = actualAmount + _erc20Cost(_guaranteedPostOpCost() * actualUserOpFeePerGas, tokenPrice);
        uint256 before = token.balanceOf(address(this));
        bool paid = token.trySafeTransferFrom(sender, address(this), effectiveAmount);
        uint256 received = paid ? Math.min(token.balanceOf(address(this)) - before, effectiveAmount) : 0;
        uint256 lost = effectiveAmount - received;
        creditOf[token][prefunder] += prefundAmount - lost;
        if (lost != 0) {
            _credits[token] -= lost;
            emit GuaranteeUnpaid(token, prefunder, sender, lost);
        }
        return (true, effectiveAmount);
    }

    /// @inheritdoc PaymasterERC20
    function _postOpCost() internal pure override returns (uint256) {
        return 45_000;
    }

    /// @inheritdoc PaymasterERC20Guarantor
    function _guaranteedPostOpCost() internal pure override returns (uint256) {
        return 35_000;
    }

    function _setNativeOracle(OracleConfig memory oracle) private {
        _requireSound(oracle);
        _native = oracle;
        emit NativeOracleSet(oracle);
    }

    /// @dev Bounds keep the arithmetic of `quote` far from its limits: both prices below 2^96, so native * BPS * units fits.
    function _requireSound(OracleConfig memory oracle) private view {
        bool sound = oracle.feed.code.length != 0 && oracle.heartbeat != 0 && oracle.minPrice != 0
            && oracle.minPrice <= oracle.maxPrice && oracle.maxPrice < type(uint96).max;
        if (!sound) revert InvalidTerms();
    }
}
