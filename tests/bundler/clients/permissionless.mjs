// permissionless.js, as its documentation has it: a SimpleAccount is created by its first transaction, used, and used in a batch.
// Order as JSON on stdin, what happened as JSON on stdout.
import { readFileSync } from 'node:fs'
import { createSmartAccountClient } from 'permissionless'
import { toSimpleSmartAccount } from 'permissionless/accounts'
import { createPublicClient, defineChain, http } from 'viem'
import { entryPoint07Address, entryPoint08Address } from 'viem/account-abstraction'
import { privateKeyToAccount } from 'viem/accounts'

const order = JSON.parse(readFileSync(0, 'utf8'))
const chain = defineChain({
  id: order.chainId,
  name: 'devnet',
  nativeCurrency: { name: 'Ether', symbol: 'ETH', decimals: 18 },
  rpcUrls: { default: { http: [order.nodeUrl] } },
})
const client = createPublicClient({ chain, transport: http(order.nodeUrl), pollingInterval: 50 })
const told = {}
for (const [version, factoryAddress] of Object.entries(order.factories)) {
  const account = await toSimpleSmartAccount({
    client,
    owner: privateKeyToAccount(order.ownerKey),
    factoryAddress,
    entryPoint: { address: version === '0.8' ? entryPoint08Address : entryPoint07Address, version },
  })
  const wallet = createSmartAccountClient({
    account,
    chain,
    client,
    bundlerTransport: http(order.bundlerUrl),
    pollingInterval: 50,
  })
  const before = await account.isDeployed()
  // sendTransaction waits for the receipt and answers the transaction's hash, as an ordinary wallet does.
  const first = await wallet.sendTransaction({ to: order.to, value: 3n })
  const second = await wallet.sendTransaction({
    calls: [
      { to: order.to, value: 4n },
      { to: order.to, value: 5n },
    ],
  })
  const hash = await wallet.sendUserOperation({ calls: [{ to: order.to, value: 6n }] })
  const receipt = await wallet.waitForUserOperationReceipt({ hash, timeout: 20_000 })
  told[version] = {
    address: account.address,
    deployedBefore: before,
    deployedAfter: (await client.getCode({ address: account.address })) !== undefined,
    transactions: [first, second],
    hash,
    success: receipt.success,
  }
}
console.log(JSON.stringify(told))
