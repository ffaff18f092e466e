// Asks viem's universal validator (ERC-6492) about signatures of a RiskAccount under ERC-7739, unmodified, and prints what it says as JSON.
// Reads {nodeUrl, chainId, account, factory, factoryData, ownerKey, thiefKey} from stdin.
import { concat, createPublicClient, defineChain, http, serializeErc6492Signature, zeroAddress } from 'viem'
import { privateKeyToAccount } from 'viem/accounts'
import { hashMessage, hashTypedData, wrapTypedDataSignature } from 'viem/experimental/erc7739'

const chunks = []
for await (const chunk of process.stdin) chunks.push(chunk)
const { nodeUrl, chainId, account, factory, factoryData, ownerKey, thiefKey } = JSON.parse(Buffer.concat(chunks).toString())
const chain = defineChain({
  id: chainId,
  name: 'devnet',
  nativeCurrency: { name: 'Ether', symbol: 'ETH', decimals: 18 },
  rpcUrls: { default: { http: [nodeUrl] } },
})
const client = createPublicClient({ chain, transport: http(nodeUrl) })
const verifierDomain = {
  name: 'Seawall RiskAccount',
  version: '1',
  chainId,
  verifyingContract: account,
  salt: `0x${'00'.repeat(32)}`,
}
const message = 'The treasury is ours.'
const permit = {
  domain: { name: 'Coin', version: '2', chainId, verifyingContract: '0x1111111111111111111111111111111111111111' },
  types: {
    Permit: [
      { name: 'spender', type: 'address' },
      { name: 'terms', type: 'Terms' },
    ],
    Terms: [
      { name: 'value', type: 'uint256' },
      { name: 'note', type: 'string' },
    ],
  },
  primaryType: 'Permit',
  message: { spender: '0x2222222222222222222222222222222222222222', terms: { value: 7n, note: 'rent' } },
}
const inner = async (key, hash) => concat([zeroAddress, await privateKeyToAccount(key).sign({ hash })])
const signMessage = (key, domain = verifierDomain) => inner(key, hashMessage({ message, verifierDomain: domain }))
const signPermit = async (key, domain = verifierDomain) =>
  wrapTypedDataSignature({ ...permit, signature: await inner(key, hashTypedData({ ...permit, verifierDomain: domain })) })
const wrap = (signature) => serializeErc6492Signature({ address: factory, data: factoryData, signature })
const isMessage = (signature, text = message) => client.verifyMessage({ address: account, message: text, signature })
const isPermit = (signature, value = 7n) =>
  client.verifyTypedData({
    ...permit,
    message: { ...permit.message, terms: { ...permit.message.terms, value } },
    address: account,
    signature,
  })

const elsewhere = { ...verifierDomain, chainId: chainId + 1 }
const raw = concat([zeroAddress, await privateKeyToAccount(ownerKey).signMessage({ message })])
console.log(
  JSON.stringify({
    deployed: (await client.getCode({ address: account })) !== undefined,
    message: await isMessage(wrap(await signMessage(ownerKey))),
    permit: await isPermit(wrap(await signPermit(ownerKey))),
    bareMessage: await isMessage(await signMessage(ownerKey)),
    barePermit: await isPermit(await signPermit(ownerKey)),
    thiefsMessage: await isMessage(wrap(await signMessage(thiefKey))),
    thiefsPermit: await isPermit(wrap(await signPermit(thiefKey))),
    otherMessage: await isMessage(wrap(await signMessage(ownerKey)), 'The treasury is yours.'),
    otherPermit: await isPermit(wrap(await signPermit(ownerKey)), 8n),
    otherChain: await isPermit(wrap(await signPermit(ownerKey, elsewhere))),
    notNested: await isMessage(wrap(raw)),
  }),
)
