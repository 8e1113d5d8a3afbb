/** The main job: a LAN client's download over two WANs at once, and when one of them is lost. */
import t from 'tap'
import { mean } from '../../src/lab/download.js'
import { labUp } from '../../src/lab/lab.js'
import { median } from '../../src/lab/measure.js'
import { Stage } from '../../src/lab/scenario.js'
import { settledSeconds } from '../../src/lab/scenarios/bond.js'
import { ports, remeasure, sleep, World } from '../support/hybrid.js'
import { needsRoot, randomName } from '../support/namespaces.js'
import { bondsocks } from '../support/process.js'
import { streamSha256 } from '../support/stream.js'

const curl = (url: string) => ['sh', '-c', `curl -sS --max-time 60 -w '%{stderr}%{time_total} ' ${url} 2>/dev/null | sha256sum`]

t.test('hybrid: DSL 20 and LTE 30 Mbit/s', { skip: needsRoot }, async (t) => {
  const world = await World.run(t)
  const { lab } = world
  const lan = world.execute('lan')
  const bytes = 40_000_000

  const parkedMegabytes = async () => {
    const samples: number[] = []
    for (let index = 0; index < 7; index++) {
      samples.push((await world.parkedBytes(ports.http)) / 1e6)
      await sleep(200)
    }
    return median(samples)
  }

  t.test('curl gets the file over both', async (t) => {
    const measure = async () => {
      const before = await lab.wanBytes()
      const started = performance.now()
      const [printed, parked] = await Promise.all([lan(...curl(url(lab, 1, bytes))), sleep(3000).then(parkedMegabytes)])
      t.match(printed, streamSha256(1, bytes))
      const rate = (bytes * 8) / (performance.now() - started) / 1000
      const after = await lab.wanBytes()
      const [dsl, lte] = ['dsl', 'lte'].map((wan) => ((after[wan]?.down ?? 0) - (before[wan]?.down ?? 0)) / bytes)
      t.comment(`40 MB with curl: ${rate.toFixed(1)} Mbit/s, ${parked.toFixed(1)} MB parked`)
      return { rate, shares: { dsl, lte }, parked }
    }
    const isRight = ({ rate, shares, parked }: Awaited<ReturnType<typeof measure>>) =>
      rate > 32 && parked > 0.1 && parked < 2 && Object.values(shares).every((share = 0) => share > 0.2)
    const { rate, shares, parked } = await remeasure(measure, isRight)
    t.ok(rate > 32, `${rate.toFixed(1)} Mbit/s is more than either WAN carries`)
    t.ok(parked > 0.1 && parked < 2, `${parked.toFixed(1)} MB wait on the way`)
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
  const lab = await labUp({ topology: 'ethernet', name: randomName() })
  t.teardown(() => lab.down())
  const stage = new Stage(lab, new AbortController().signal, { bondsocks: bondsocks(), print: () => {} })
  try {
    await stage.startServer()
    await stage.startHag()
    await stage.startGateway()
    const measure = async () => {
      // Throws where a byte is wrong.
      const { average, samples } = await stage.download(130)
      const rate = mean(samples, settledSeconds).payload
      t.comment(`130 MB over 10 + 100 Mbit/s: ${average.toFixed(1)} Mbit/s, after the first 3 s ${rate.toFixed(1)}`)
      return rate
    }
    const rate = await remeasure(measure, (one) => one > 95)
    t.ok(rate > 95, 'more than the 94.3 that the fast one alone carries')
  } finally {
    await stage.close()
  }
})

const url = (lab: { addresses: { server: string } }, seed: number, bytes: number) =>
  `http://${lab.addresses.server}:${ports.http}/${seed}/${bytes}`
