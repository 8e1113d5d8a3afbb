import t from 'tap'
import { Bypass, refusal } from '../../src/redirect/policy.js'
import { type Cidr, parseCidr } from '../../src/shared/address.js'
import { OwnAddresses } from '../../src/shared/own-addresses.js'

const isOwn = (address: string) => ['192.168.1.1', '10.1.0.2', '2001:db8:1::2'].includes(address)
const at = (client: string, destination: string, port = 443) => ({
  client: { address: client, port: 40_000 },
  destination: { address: destination, port },
  local: { address: '192.168.1.1', port: 12_345 },
})

t.test('a connection to our own listener is refused, with the rule to mend', async (t) => {
  const refused = refusal(at('192.168.1.20', '192.168.1.1', 12_345), isOwn)
  t.equal(refused?.cause, 'loop-listener')
  t.equal(
    refused?.message,
    'refused a connection from 192.168.1.20 to our own listener 192.168.1.1:12345: nothing redirected it, or a REDIRECT rule ' +
      'that takes local destinations too: let that rule in `iptables -t nat -S` skip them with `-m addrtype ! --dst-type LOCAL`',
  )
  t.equal(refusal(at('192.168.1.20', '10.1.0.2', 12_345), isOwn)?.cause, 'loop-listener', 'by another of our addresses')
  t.equal(refusal(at('192.168.1.20', '198.51.100.7', 12_345), isOwn), undefined, "somebody else's port of that number")
  t.equal(refusal(at('192.168.1.20', '192.168.1.1', 443), isOwn), undefined, 'another port of ours')
})

t.test('our own connection that comes back is refused, with the rule to mend', async (t) => {
  const refused = refusal(at('10.1.0.2', '203.0.113.3', 1080), isOwn)
  t.equal(refused?.cause, 'loop-own')
  t.equal(
    refused?.message,
    "refused a redirect loop: the gateway's own connection from 10.1.0.2 to 203.0.113.3:1080 was redirected to us: take away the " +
      'REDIRECT rule in the OUTPUT chain (`iptables -t nat -S OUTPUT`), or limit it to LAN interfaces with `-i`',
  )
})

t.test('bypassed destinations, also once remembered and forgotten', async (t) => {
  const bypass = new Bypass({ bypass: [parseCidr('198.51.100.0/24') as Cidr, parseCidr('2001:db8::/32') as Cidr] })
  for (let round = 0; round < 2; round++) {
    t.equal(bypass.has('198.51.100.7'), true)
    t.equal(bypass.has('2001:db8::1'), true)
    t.equal(bypass.has('203.0.113.9'), false)
    for (let n = 0; n < 5000; n++) bypass.has(`10.0.${n >> 8}.${n & 255}`)
  }
})

t.test('own addresses are read again after a while', async (t) => {
  let addresses = ['10.1.0.2']
  let now = 0
  const own = new OwnAddresses(
    () => addresses,
    () => now,
  )
  t.equal(own.has('10.1.0.2'), true)
  addresses = ['10.1.0.9']
  t.equal(own.has('10.1.0.9'), false)
  now = 3001
  t.equal(own.has('10.1.0.9'), true)
  t.equal(own.has('10.1.0.2'), false)
  t.equal(own.has('127.0.0.53'), true)
  t.equal(new OwnAddresses().has('127.0.0.1'), true)
})
