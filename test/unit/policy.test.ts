import t from 'tap'
import { type Cidr, parseCidr } from '../../src/base/address.js'
import { Bypass } from '../../src/gateway/connections/policy.js'

t.test('bypassed destinations, also once remembered and forgotten', async (t) => {
  const bypass = new Bypass({ bypass: [parseCidr('198.51.100.0/24') as Cidr, parseCidr('2001:db8::/32') as Cidr] })
  for (let round = 0; round < 2; round++) {
    t.equal(bypass.has('198.51.100.7'), true)
    t.equal(bypass.has('2001:db8::1'), true)
    t.equal(bypass.has('203.0.113.9'), false)
    for (let n = 0; n < 5000; n++) bypass.has(`10.0.${n >> 8}.${n & 255}`)
  }
})
