// SPDX-License-Identifier: MIT
pragma solidity ^0.8.26;

import {PackedUserOperation} from "@openzeppelin/contracts/interfaces/IERC4337.sol";
import {Base64} from "@openzeppelin/contracts/utils/Base64.sol";
import {RiskAccount} from "../src/account/RiskAccount.sol";
import {AccountConfig} from "../src/interfaces/IRiskAccount.sol";
import {OwnerLib} from "../src/libraries/OwnerLib.sol";
import {MultisigOwner} from "../src/owners/MultisigOwner.sol";
import {P256Owner} from "../src/owners/P256Owner.sol";
import {WebAuthnOwner} from "../src/owners/WebAuthnOwner.sol";
import {Base} from "./Base.sol";

/// What every kind of owner must do, the same for all.
abstract contract OwnerBehaviour is Base {
    bytes32 internal constant HASH = keccak256("operation");
    uint256 internal constant P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551;
    RiskAccount internal owned;

    /// The owner under test, its signature, and one of somebody else of the same kind.
    function _owner() internal virtual returns (bytes memory);
    function _ownerSigns(bytes32 hash) internal virtual returns (bytes memory);
    function _strangerSigns(bytes32 hash) internal virtual returns (bytes memory);

    function setUp() public virtual override {
        super.setUp();
        AccountConfig memory config = _config(_modules());
        config.owner = _owner();
        owned = RiskAccount(payable(factory.createAccount(config, "owned")));
    }

    function _operation(bytes memory signature) internal view returns (PackedUserOperation memory op) {
        op = _userOp(address(owned), address(0), 0, "");
        op.signature = signature;
    }

    function test_the_owners_operation_is_valid_and_nobody_elses() public {
        eq(_validate(_operation(_ownerSigns(HASH)), HASH), 0, "owner");
        eq(_validate(_operation(_strangerSigns(HASH)), HASH), FAILED, "stranger");
        eq(_validate(_operation(_ownerSigns(keccak256("another"))), HASH), FAILED, "another operation");
        eq(_validate(_operation(""), HASH), FAILED, "nothing");
    }

    function testFuzz_a_signature_that_was_changed_is_refused(uint256 at, uint8 change, uint8 cut) public {
        bytes memory signature = _ownerSigns(HASH);
        at %= signature.length;
        bytes memory bent = bytes.concat(signature);
        bent[at] ^= bytes1(change | 1);
        vm.prank(address(ENTRY_POINT));
        try owned.validateUserOp(_operation(bent), HASH, 0) returns (uint256 answer) {
            isTrue(answer == FAILED || _harmless(at), "changed");
        } catch {}
        bytes memory short = new bytes(signature.length - 1 - cut % signature.length);
        for (uint256 i = 0; i < short.length; ++i) {
            short[i] = signature[i];
        }
        vm.prank(address(ENTRY_POINT));
        try owned.validateUserOp(_operation(short), HASH, 0) returns (uint256 answer) {
            isTrue(answer == FAILED || _harmless(short.length), "cut");
        } catch {}
    }

    /// Whether a byte of the signature means nothing to this kind (padding of an ABI encoding).
    function _harmless(uint256) internal view virtual returns (bool) {
        return false;
    }

    function test_messages_are_signed_under_erc7739() public {
        bytes32 hash = keccak256("message");
        bytes32 nested = _typed(
            _domain("Seawall RiskAccount", address(owned)),
            keccak256(abi.encode(keccak256("PersonalSign(bytes prefixed)"), hash))
        );
        bytes4 magic = owned.isValidSignature(hash, abi.encodePacked(address(0), _ownerSigns(nested)));
        eq(bytes32(magic), bytes32(bytes4(0x1626ba7e)), "nested");
        magic = owned.isValidSignature(hash, abi.encodePacked(address(0), _strangerSigns(nested)));
        eq(bytes32(magic), bytes32(bytes4(0xffffffff)), "stranger");
        magic = owned.isValidSignature(hash, abi.encodePacked(address(0), _ownerSigns(hash)));
        eq(bytes32(magic), bytes32(bytes4(0xffffffff)), "not bound to the account");
    }

    function test_one_root_signed_once_authorises_operations_of_many_lanes_and_chains() public {
        bytes32 other = keccak256("an operation on another chain");
        bytes32 leaf = keccak256(abi.encode(block.chainid, address(ENTRY_POINT), address(owned), HASH));
        bytes32 sibling = keccak256(abi.encode(uint256(10), address(ENTRY_POINT), address(owned), other));
        bytes32 root =
            leaf < sibling ? keccak256(abi.encodePacked(leaf, sibling)) : keccak256(abi.encodePacked(sibling, leaf));
        bytes32 domain = keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version)"), keccak256("Seawall RiskAccount"), keccak256("1")
            )
        );
        bytes memory signature =
            _ownerSigns(_typed(domain, keccak256(abi.encode(keccak256("MerkleRoot(bytes32 root)"), root))));
        PackedUserOperation memory op = _userOp(address(owned), address(0), 4, "");
        op.signature = abi.encodePacked(uint8(5), uint8(1), sibling, signature);
        eq(_validate(op, HASH), 0, "here");
        eq(_validate(op, other), FAILED, "the other chain's operation, here");
        op.signature = abi.encodePacked(uint8(5), uint8(1), leaf, signature);
        vm.chainId(10);
        eq(_validate(op, other), 0, "there");
        eq(_validate(op, HASH), FAILED, "this chain's, there");
        op.nonce = 0;
        eq(_validate(op, other), FAILED, "another lane");
        op.nonce = uint256(4) << 88;
        op.signature = abi.encodePacked(uint8(5), uint8(2), leaf, signature);
        eq(_validate(op, other), FAILED, "longer proof");
        op.signature = abi.encodePacked(uint8(6), uint8(1), leaf, signature);
        eq(_validate(op, other), FAILED, "type");
        op.signature = hex"05";
        eq(_validate(op, other), FAILED, "no proof");
    }

    function test_a_root_dies_with_the_native_path() public {
        _install(address(owned), 1, address(validator), _riskData(""));
        bytes32 leaf = keccak256(abi.encode(block.chainid, address(ENTRY_POINT), address(owned), HASH));
        bytes32 domain = keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version)"), keccak256("Seawall RiskAccount"), keccak256("1")
            )
        );
        PackedUserOperation memory op = _userOp(address(owned), address(0), 4, "");
        op.signature = abi.encodePacked(
            uint8(5),
            uint8(0),
            _ownerSigns(_typed(domain, keccak256(abi.encode(keccak256("MerkleRoot(bytes32 root)"), leaf))))
        );
        eq(_validate(op, HASH), FAILED, "attestation needed");
    }

    function test_the_owner_changes_to_another_kind_through_the_delay_and_back() public {
        bytes memory mine = owned.ownerSigner();
        account = owned;
        _announced(abi.encodeCall(owned.setOwner, (abi.encodePacked(uint8(0), vm.addr(ENGINE_A_KEY)))));
        eq(_validate(_operation(_ownerSigns(HASH)), HASH), FAILED, "former owner");
        eq(_validate(_operation(_sign(ENGINE_A_KEY, HASH)), HASH), 0, "new owner");
        _announced(abi.encodeCall(owned.setOwner, (mine)));
        eq(_validate(_operation(_ownerSigns(HASH)), HASH), 0, "back");
    }
}

contract EcdsaOwnerTest is OwnerBehaviour {
    function _owner() internal view override returns (bytes memory) {
        return _ownerBytes();
    }

    function _ownerSigns(bytes32 hash) internal pure override returns (bytes memory) {
        return _sign(OWNER_KEY, hash);
    }

    function _strangerSigns(bytes32 hash) internal pure override returns (bytes memory) {
        return _sign(THIEF_KEY, hash);
    }
}

/// A contract with a key of its own.
contract KeyedContract {
    address private immutable KEY;

    constructor(address key) {
        KEY = key;
    }

    function isValidSignature(bytes32 hash, bytes calldata signature) external view returns (bytes4) {
        return OwnerLib.isValidEcdsa(KEY, hash, signature) ? bytes4(0x1626ba7e) : bytes4(0xffffffff);
    }
}

contract ContractOwnerTest is OwnerBehaviour {
    function _owner() internal override returns (bytes memory) {
        return abi.encodePacked(uint8(2), address(new KeyedContract(owner)));
    }

    function _ownerSigns(bytes32 hash) internal pure override returns (bytes memory) {
        return _sign(OWNER_KEY, hash);
    }

    function _strangerSigns(bytes32 hash) internal pure override returns (bytes memory) {
        return _sign(THIEF_KEY, hash);
    }
}

contract P256OwnerTest is OwnerBehaviour {
    function _owner() internal override returns (bytes memory) {
        (uint256 x, uint256 y) = vm.publicKeyP256(OWNER_KEY);
        return abi.encodePacked(uint8(1), address(new P256Owner()), x, y);
    }

    function _p256(uint256 key, bytes32 hash) internal pure returns (bytes32 r, bytes32 s) {
        (r, s) = vm.signP256(key, hash);
        if (uint256(s) > P256_ORDER / 2) s = bytes32(P256_ORDER - uint256(s));
    }

    function _ownerSigns(bytes32 hash) internal pure override returns (bytes memory) {
        (bytes32 r, bytes32 s) = _p256(OWNER_KEY, hash);
        return abi.encodePacked(r, s);
    }

    function _strangerSigns(bytes32 hash) internal pure override returns (bytes memory) {
        (bytes32 r, bytes32 s) = _p256(THIEF_KEY, hash);
        return abi.encodePacked(r, s);
    }

    function test_the_other_half_of_the_order_is_refused() public {
        (bytes32 r, bytes32 s) = _p256(OWNER_KEY, HASH);
        eq(_validate(_operation(abi.encodePacked(r, P256_ORDER - uint256(s))), HASH), FAILED, "malleable");
    }
}

contract WebAuthnOwnerTest is OwnerBehaviour {
    function _owner() internal override returns (bytes memory) {
        (uint256 x, uint256 y) = vm.publicKeyP256(OWNER_KEY);
        return abi.encodePacked(uint8(1), address(new WebAuthnOwner()), x, y);
    }

    function _assertion(uint256 key, bytes32 hash, bytes1 flags, string memory kind)
        private
        pure
        returns (bytes memory)
    {
        bytes memory authenticator = abi.encodePacked(sha256("wallet.example"), flags, uint32(7));
        string memory client = string.concat(
            '{"type":"',
            kind,
            '","challenge":"',
            Base64.encodeURL(abi.encodePacked(hash)),
            '","origin":"https://wallet.example"}'
        );
        (bytes32 r, bytes32 s) = vm.signP256(key, sha256(abi.encodePacked(authenticator, sha256(bytes(client)))));
        if (uint256(s) > P256_ORDER / 2) s = bytes32(P256_ORDER - uint256(s));
        return abi.encode(r, s, bytes(kind).length + 11, uint256(1), authenticator, client);
    }

    function _ownerSigns(bytes32 hash) internal pure override returns (bytes memory) {
        return _assertion(OWNER_KEY, hash, 0x05, "webauthn.get");
    }

    function _strangerSigns(bytes32 hash) internal pure override returns (bytes memory) {
        return _assertion(THIEF_KEY, hash, 0x05, "webauthn.get");
    }

    /// Padding of the ABI encoding, which the authenticator never saw: behind 37 bytes of authenticator data, and behind the client data.
    function _harmless(uint256 at) internal pure override returns (bool) {
        uint256 client = 36 + 43 + bytes('","origin":"https://wallet.example"}').length;
        return (at >= 0xe0 + 37 && at < 0x120) || at >= 0x140 + client;
    }

    function test_an_absent_or_unverified_user_and_another_ceremony_are_refused() public {
        eq(_validate(_operation(_assertion(OWNER_KEY, HASH, 0x04, "webauthn.get")), HASH), FAILED, "absent");
        eq(_validate(_operation(_assertion(OWNER_KEY, HASH, 0x01, "webauthn.get")), HASH), FAILED, "unverified");
        eq(_validate(_operation(_assertion(OWNER_KEY, HASH, 0x05, "webauthn.create")), HASH), FAILED, "creation");
    }
}

contract MultisigOwnerTest is OwnerBehaviour {
    uint256[3] private keys = [uint256(0xA1), 0xA2, 0xA3];
    MultisigOwner private multisig;
    P256Owner private p256;

    /// A lead with weight 2 (secp256k1), a colleague (secp256k1) and a P-256 key with weight 1 each; three of four are needed.
    function _owner() internal override returns (bytes memory) {
        (multisig, p256) = (new MultisigOwner(), new P256Owner());
        return abi.encodePacked(uint8(1), address(multisig), _key(3));
    }

    function _key(uint16 threshold) private view returns (bytes memory) {
        (uint256 x, uint256 y) = vm.publicKeyP256(keys[2]);
        return abi.encodePacked(
            threshold,
            _seat(2, abi.encodePacked(uint8(0), vm.addr(keys[0]))),
            _seat(1, abi.encodePacked(uint8(0), vm.addr(keys[1]))),
            _seat(1, abi.encodePacked(uint8(1), address(p256), x, y))
        );
    }

    function _seat(uint16 weight, bytes memory signer) private pure returns (bytes memory) {
        return abi.encodePacked(weight, uint16(signer.length), signer);
    }

    function _by(uint8 index, bytes32 hash) private view returns (bytes memory) {
        bytes memory signature;
        if (index < 2) {
            signature = _sign(keys[index], hash);
        } else {
            (bytes32 r, bytes32 s) = vm.signP256(keys[2], hash);
            if (uint256(s) > P256_ORDER / 2) s = bytes32(P256_ORDER - uint256(s));
            signature = abi.encodePacked(r, s);
        }
        return abi.encodePacked(index, uint16(signature.length), signature);
    }

    function _ownerSigns(bytes32 hash) internal view override returns (bytes memory) {
        return bytes.concat(_by(0, hash), _by(2, hash));
    }

    function _strangerSigns(bytes32 hash) internal view override returns (bytes memory) {
        return bytes.concat(_by(1, hash), _by(2, hash)); // weight 2 of 3
    }

    function test_weights_decide() public {
        eq(_validate(_operation(bytes.concat(_by(0, HASH), _by(1, HASH))), HASH), 0, "lead and one");
        eq(_validate(_operation(_by(0, HASH)), HASH), FAILED, "lead alone");
        eq(_validate(_operation(bytes.concat(_by(0, HASH), _by(1, HASH), _by(2, HASH))), HASH), 0, "everybody");
    }

    function test_nobody_counts_twice_and_order_matters() public {
        eq(_validate(_operation(bytes.concat(_by(0, HASH), _by(0, HASH))), HASH), FAILED, "twice");
        eq(_validate(_operation(bytes.concat(_by(2, HASH), _by(0, HASH))), HASH), FAILED, "order");
        bytes memory bad = abi.encodePacked(uint8(1), uint16(65), _sign(THIEF_KEY, HASH));
        eq(_validate(_operation(bytes.concat(_by(0, HASH), bad, _by(2, HASH))), HASH), FAILED, "one forged");
        bytes memory unknown = abi.encodePacked(uint8(3), uint16(65), _sign(keys[0], HASH));
        eq(_validate(_operation(bytes.concat(_by(0, HASH), unknown)), HASH), FAILED, "no such signer");
    }

    function test_sound_keys_are_told_from_those_that_could_never_sign() public view {
        isTrue(multisig.isSound(_key(3)) && multisig.isSound(_key(4)), "sound");
        isTrue(!multisig.isSound(_key(0)), "no threshold");
        isTrue(!multisig.isSound(_key(5)), "out of reach");
        isTrue(!multisig.isSound("") && !multisig.isSound(hex"0001"), "nobody");
        isTrue(!multisig.isSound(bytes.concat(_key(3), hex"00")), "trailing byte");
        bytes memory one = _seat(1, abi.encodePacked(uint8(0), vm.addr(keys[0])));
        isTrue(multisig.isSound(abi.encodePacked(uint16(1), one)), "one");
        isTrue(!multisig.isSound(abi.encodePacked(uint16(1), one, one)), "twice the same");
        one = _seat(0, abi.encodePacked(uint8(0), vm.addr(keys[0])));
        isTrue(!multisig.isSound(abi.encodePacked(uint16(1), one)), "no weight");
        one = _seat(1, abi.encodePacked(uint8(2), vm.addr(keys[0])));
        isTrue(!multisig.isSound(abi.encodePacked(uint16(1), one)), "contract without code");
        one = _seat(1, abi.encodePacked(uint8(3), vm.addr(keys[0])));
        isTrue(!multisig.isSound(abi.encodePacked(uint16(1), one)), "unknown kind");
    }

    function testFuzz_no_noise_is_a_key_or_a_signature(bytes memory key, bytes memory signature) public view {
        try multisig.verify(key, HASH, signature) returns (bytes4 answer) {
            eq(bytes32(answer), bytes32(bytes4(0xffffffff)), "noise");
        } catch {
            isTrue(false, "must not revert");
        }
        multisig.isSound(key);
    }
}
