// permissionless.js' ERC-7579 actions on a RiskAccount: create it, drive it, install a module, uninstall it.
// What is written here is what any account needs in viem, an adapter; the libraries are as they are published.
import { readFileSync } from 'node:fs'
import { createSmartAccountClient } from 'permissionless'
import { erc7579Actions } from 'permissionless/actions/erc7579'
import {
  concatHex,
  createPublicClient,
  defineChain,
  encodeAbiParameters,
  encodeFunctionData,
  encodePacked,
  http,
  parseAbi,
  parseAbiParameters,
  toFunctionSelector,
  zeroHash,
} from 'viem'
import { entryPoint08Abi, entryPoint08Address, getUserOperationHash, toSmartAccount } from 'viem/account-abstraction'
import { privateKeyToAccount } from 'viem/accounts'

const order = JSON.parse(readFileSync(0, 'utf8'))
const chain = defineChain({
  id: order.chainId,
  name: 'devnet',
  nativeCurrency: { name: 'Ether', symbol: 'ETH', decimals: 18 },
  rpcUrls: { default: { http: [order.nodeUrl] } },
})
const client = createPublicClient({ chain, transport: http(order.nodeUrl), pollingInterval: 50 })
const owner = privateKeyToAccount(order.ownerKey)
const abi = parseAbi([
  'function execute(bytes32 mode, bytes executionCalldata)',
  'function scheduleAdmin(bytes data)',
  'function executeAdmin(bytes data)',
])
const UNINSTALL = toFunctionSelector('uninstallModule(uint256,address,bytes)')
const SINGLE = zeroHash
const BATCH = ('0x01' + '00'.repeat(31))

const account = await toSmartAccount({
  client,
  entryPoint: { abi: entryPoint08Abi, address: entryPoint08Address, version: '0.8' },
  getAddress: async () => order.account,
  getFactoryArgs: async () => ({ factory: order.factory, factoryData: order.factoryData }),
  // viem draws nonce keys from the clock; ours name a validator (20 bytes) and a lane: all zero is the owner's own.
  getNonce: async () =>
    client.readContract({
      abi: entryPoint08Abi,
      address: entryPoint08Address,
      functionName: 'getNonce',
      args: [order.account, 0n],
    }),
  // A RiskAccount uninstalls only what was announced; without a delay (admin_delay 0) both steps go into one batch.
  encodeCalls: async (calls) => {
    const full = calls.flatMap(({ to, value = 0n, data = '0x' }) =>
      to.toLowerCase() === order.account.toLowerCase() && data.startsWith(UNINSTALL)
        ? [
            { target: to, value, callData: encodeFunctionData({ abi, functionName: 'scheduleAdmin', args: [data] }) },
            { target: to, value, callData: encodeFunctionData({ abi, functionName: 'executeAdmin', args: [data] }) },
          ]
        : [{ target: to, value, callData: data }],
    )
    const [only] = full
    return full.length === 1
      ? encodeFunctionData({
          abi,
          functionName: 'execute',
          args: [SINGLE, encodePacked(['address', 'uint256', 'bytes'], [only.target, only.value, only.callData])],
        })
      : encodeFunctionData({
          abi,
          functionName: 'execute',
          args: [
            BATCH,
            encodeAbiParameters(parseAbiParameters('(address target, uint256 value, bytes callData)[]'), [full]),
          ],
        })
  },
  decodeCalls: async () => [],
  getStubSignature: async () => concatHex(['0x' + 'ff'.repeat(15) + 'f0' + '00'.repeat(16) + '7a' + 'aa'.repeat(31), '0x1c']),
  signMessage: ({ message }) => owner.signMessage({ message }),
  signTypedData: (data) => owner.signTypedData(data),
  signUserOperation: async (userOperation) =>
    owner.sign({
      hash: getUserOperationHash({
        chainId: order.chainId,
        entryPointAddress: entryPoint08Address,
        entryPointVersion: '0.8',
        userOperation: { ...userOperation, sender: userOperation.sender ?? order.account },
      }),
    }),
})
const wallet = createSmartAccountClient({
  account,
  chain,
  client,
  bundlerTransport: http(order.bundlerUrl),
  pollingInterval: 50,
}).extend(erc7579Actions())

const settled = async (hash) => (await wallet.waitForUserOperationReceipt({ hash, timeout: 20_000 })).success
const module = { type: 'executor', address: order.module }
const told = {
  accountIdBefore: await wallet.accountId(),
  supportsExecutors: await wallet.supportsModule({ type: 'executor' }),
  supportsBatch: await wallet.supportsExecutionMode({ type: 'batchcall' }),
}
await wallet.sendTransaction({ to: order.to, value: 3n })
told.accountId = await wallet.accountId()
told.installedBefore = await wallet.isModuleInstalled({ ...module, context: '0x' })
told.installed = await settled(await wallet.installModule({ ...module, context: '0x' }))
told.installedAfter = await wallet.isModuleInstalled({ ...module, context: '0x' })
await wallet.sendTransaction({
  calls: [
    { to: order.to, value: 4n },
    { to: order.to, value: 5n },
  ],
})
told.uninstalled = await settled(await wallet.uninstallModule({ ...module, context: '0x' }))
told.installedAtTheEnd = await wallet.isModuleInstalled({ ...module, context: '0x' })
console.log(JSON.stringify(told))
