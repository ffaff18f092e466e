// Sends operations of a SimpleAccount through a bundler with viem, unmodified, and prints what viem read back as JSON.
// Reads {nodeUrl, bundlerUrl, factory, ownerKey, chainId, to, version, paymaster} from stdin; a paymaster's operations carry a
// paymasterSignature beside its data.
import { createPublicClient, defineChain, encodeFunctionData, http, parseAbi } from 'viem'
import {
  createBundlerClient,
  entryPoint08Abi,
  entryPoint08Address,
  entryPoint09Abi,
  entryPoint09Address,
  getUserOperationTypedData,
  toSmartAccount,
} from 'viem/account-abstraction'
import { privateKeyToAccount } from 'viem/accounts'

const chunks = []
for await (const chunk of process.stdin) chunks.push(chunk)
const { nodeUrl, bundlerUrl, factory, ownerKey, chainId, to, version, paymaster } = JSON.parse(Buffer.concat(chunks).toString())

const entryPoint = {
  '0.8': { abi: entryPoint08Abi, address: entryPoint08Address, version: '0.8' },
  '0.9': { abi: entryPoint09Abi, address: entryPoint09Address, version: '0.9' },
}[version]
const chain = defineChain({
  id: chainId,
  name: 'devnet',
  nativeCurrency: { name: 'Ether', symbol: 'ETH', decimals: 18 },
  rpcUrls: { default: { http: [nodeUrl] } },
})
const client = createPublicClient({ chain, transport: http(nodeUrl) })
const owner = privateKeyToAccount(ownerKey)
const factoryAbi = parseAbi([
  'function createAccount(address owner, uint256 salt) returns (address)',
  'function getAddress(address owner, uint256 salt) view returns (address)',
])
const accountAbi = parseAbi([
  'function execute(address target, uint256 value, bytes data)',
  'function executeBatch((address target, uint256 value, bytes data)[] calls)',
])

const account = await toSmartAccount({
  client,
  entryPoint,
  getAddress: () =>
    client.readContract({ address: factory, abi: factoryAbi, functionName: 'getAddress', args: [owner.address, 0n] }),
  getFactoryArgs: async () => ({
    factory,
    factoryData: encodeFunctionData({ abi: factoryAbi, functionName: 'createAccount', args: [owner.address, 0n] }),
  }),
  encodeCalls: async (calls) => {
    const full = calls.map(({ to, value = 0n, data = '0x' }) => ({ target: to, value, data }))
    return full.length === 1
      ? encodeFunctionData({
          abi: accountAbi,
          functionName: 'execute',
          args: [full[0].target, full[0].value, full[0].data],
        })
      : encodeFunctionData({ abi: accountAbi, functionName: 'executeBatch', args: [full] })
  },
  decodeCalls: async () => [],
  getStubSignature: async () =>
    '0xfffffffffffffffffffffffffffffff0000000000000000000000000000000007aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa1c',
  signMessage: ({ message }) => owner.signMessage({ message }),
  signTypedData: (data) => owner.signTypedData(data),
  signUserOperation: async (userOperation) =>
    owner.signTypedData(
      getUserOperationTypedData({
        chainId,
        entryPointAddress: entryPoint.address,
        userOperation: { ...userOperation, sender: userOperation.sender ?? (await account.getAddress()) },
      }),
    ),
})

const sponsorship = async () => ({
  paymaster,
  paymasterData: '0xaaaa',
  paymasterSignature: `0x${'ee'.repeat(65)}`,
  paymasterPostOpGasLimit: 0n,
})
const bundler = createBundlerClient({
  account,
  chain,
  client,
  transport: http(bundlerUrl),
  pollingInterval: 50,
  ...(paymaster && { paymaster: { getPaymasterStubData: sponsorship, getPaymasterData: sponsorship } }),
})
const answers = []
for (const calls of [[{ to, value: 3n }], [{ to, value: 4n }, { to, value: 5n }]]) {
  const hash = await bundler.sendUserOperation({ calls })
  const receipt = await bundler.waitForUserOperationReceipt({ hash, timeout: 20_000 })
  const found = await bundler.getUserOperation({ hash })
  answers.push({
    hash,
    success: receipt.success,
    sender: receipt.sender,
    nonce: String(receipt.nonce),
    gasUsed: String(receipt.actualGasUsed),
    transactionHash: receipt.receipt.transactionHash,
    foundIn: found.transactionHash,
    foundSender: found.userOperation.sender,
    paymaster: receipt.paymaster,
    paymasterSignature: found.userOperation.paymasterSignature,
  })
}
let refusal = ''
try {
  await bundler.sendUserOperation({ calls: [{ to, value: 10n ** 30n }] })
} catch (error) {
  refusal = error.name + ': ' + error.message
}
console.log(
  JSON.stringify({
    account: account.address,
    chainId: await bundler.getChainId(),
    entryPoints: await bundler.getSupportedEntryPoints(),
    balance: String(await client.getBalance({ address: to })),
    answers,
    refusal,
  }),
)
