import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { loadGateway, loadHag } from '../../src/config/load.js'
import { mean, type Sample } from '../../src/lab/download.js'
import { sha256Of, streamOf } from '../../src/lab/files.js'
import { planOf, topologies } from '../../src/lab/topology.js'

for (const topology of topologies) {
  t.test(`${topology}: a plan that holds together`, async (t) => {
    const { hosts, edge, wires, loopbacks, routes, routers, addresses } = planOf(topology)
    const ends = wires.flatMap(({ ends }) => ends)
    for (const host of [edge, ...routers, ...Object.keys(loopbacks), ...Object.keys(routes), ...ends.map(({ host }) => host)]) {
      t.ok(hosts.includes(host), host)
    }
    const devices = ends.map(({ host, device }) => `${host} ${device}`)
    t.equal(new Set(devices).size, devices.length, 'no device twice')
    const all = [...ends.flatMap((end) => end.addresses), ...Object.values(loopbacks).flat()]
    t.equal(new Set(all).size, all.length, 'no address twice')
    for (const address of Object.values(addresses).filter(Boolean)) {
      t.ok(
        all.some((one) => one.startsWith(`${address}/`)),
        `some host has ${address}`,
      )
    }
    for (const { ends, shape } of wires) if (shape !== undefined) t.equal(ends[0].host, edge, 'the first end is the edge')
  })
}

t.test('the configs are valid and name what is there', async (t) => {
  const of = (topology: 'hybrid' | 'ethernet') => {
    const folder = t.testdir()
    for (const [file, text] of Object.entries(planOf(topology).configs)) writeFileSync(join(folder, file), text)
    return { gateway: loadGateway(join(folder, 'gateway.yaml')), hag: loadHag(join(folder, 'hag.yaml')) }
  }
  t.match(of('hybrid'), {
    gateway: {
      lan: { interfaces: ['br0'] },
      wans: [
        { name: 'dsl', gateway: '10.1.0.1' },
        { name: 'lte', gateway: '10.2.0.1' },
      ],
      hags: [{ address: '203.0.113.3', port: 1080 }],
    },
    hag: { listen: { address: '203.0.113.3', port: 1080 } },
  })
  t.match(of('ethernet'), {
    gateway: { wans: [{ name: 'eth1' }, { name: 'eth2' }], hags: [{ address: '4.4.4.4' }] },
    hag: { listen: { address: '4.4.4.4' } },
  })
})

t.test('the file server sends the bytes whose checksum is expected', async (t) => {
  const bytes = Buffer.concat([...streamOf(200_000)])
  t.equal(bytes.length, 200_000)
  t.ok(bytes.equals(Buffer.concat([...streamOf(300_000)]).subarray(0, 200_000)), 'one stream, whatever its length')
  t.notOk(bytes.subarray(0, 65536).equals(bytes.subarray(65536, 131_072)), 'no two places are alike')
  t.not(sha256Of(200_000), sha256Of(200_001))
})

t.test('means take whole seconds within the bounds only', async (t) => {
  const sample = (at: number, rate: number): Sample => ({ at, wans: { dsl: rate }, payload: rate * 2 })
  const samples = [sample(1, 100), sample(2, 10), sample(3, 20), sample(4.1, 100)]
  t.same(mean(samples, 1, 4), { wans: { dsl: 15 }, payload: 30 })
})
