/** The main job: a LAN client's download over two WANs at once, and when one of them is lost. */
import t from 'tap'
import { ports, remeasure, sleep, World } from '../support/hybrid.js'
import { needsRoot } from '../support/namespaces.js'
import { streamSha256 } from '../support/stream.js'

const curl = (url: string) => ['sh', '-c', `curl -sS --max-time 60 -w '%{stderr}%{time_total} ' ${url} 2>/dev/null | sha256sum`]

t.test('hybrid: DSL 20 and LTE 30 Mbit/s', { skip: needsRoot }, async (t) => {
  const world = await World.run(t)
  const { lab } = world
  const lan = world.execute('lan')
  const bytes = 40_000_000

  t.test('curl gets the file over both', async (t) => {
    const measure = async () => {
      const before = await lab.wanBytes()
      const started = performance.now()
      t.match(await lan(...curl(url(lab, 1, bytes))), streamSha256(1, bytes))
      const rate = (bytes * 8) / (performance.now() - started) / 1000
      const after = await lab.wanBytes()
      const [dsl, lte] = ['dsl', 'lte'].map((wan) => ((after[wan]?.down ?? 0) - (before[wan]?.down ?? 0)) / bytes)
      t.comment(`40 MB with curl: ${rate.toFixed(1)} Mbit/s`)
      return { rate, shares: { dsl, lte } }
    }
    const { rate, shares } = await remeasure(measure, (one) => one.rate > 32)
    t.ok(rate > 32, `${rate.toFixed(1)} Mbit/s is more than either WAN carries`)
    for (const [wan, share = 0] of Object.entries(shares)) t.ok(share > 0.2, `${wan} carried ${(share * 100).toFixed(0)} %`)
  })

  t.test('a WAN that turns into a black hole loses no byte', async (t) => {
    const download = lan(...curl(url(lab, 2, bytes)))
    await sleep(2000)
    await lab.blackHole('dsl', true)
    t.match(await download, streamSha256(2, bytes))
    await lab.blackHole('dsl', false)
  })
})

t.test('ethernet: 10 and 100 Mbit/s', { skip: needsRoot }, async (t) => {
  const { lab, client } = await World.run(t, { topology: 'ethernet' })
  const bytes = 100_000_000
  const measure = async () => {
    const transfer = await client.call('download', { host: lab.addresses.server, port: ports.source, bytes })
    t.match(transfer, { intact: true })
    const rate = (bytes * 8) / transfer.seconds / 1e6
    t.comment(`100 MB over 10 + 100 Mbit/s: ${rate.toFixed(1)} Mbit/s`)
    return rate
  }
  const rate = await remeasure(measure, (one) => one > 95)
  t.ok(rate > 95, 'more than the 94.3 that the fast one alone carries')
})

const url = (lab: { addresses: { server: string } }, seed: number, bytes: number) =>
  `http://${lab.addresses.server}:${ports.http}/${seed}/${bytes}`
