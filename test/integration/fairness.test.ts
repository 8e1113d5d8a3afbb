/** Downloads of one LAN beside each other, and small requests beside them: who comes first does not take all. */
import t from 'tap'
import { median } from '../../src/lab/measure.js'
import { jain } from '../support/fairness.js'
import { ports, remeasure, sleep, World } from '../support/hybrid.js'
import { needsRoot, needsSpeed } from '../support/namespaces.js'

const skip = needsRoot || needsSpeed

t.test('four downloads share the WANs, and small requests stay quick', { skip }, async (t) => {
  const world = await World.run(t)
  const target = { host: world.lab.addresses.server, port: ports.source }
  const small = async () => {
    const milliseconds: number[] = []
    for (let index = 0; index < 8; index++) {
      const one = await world.client.call('download', { ...target, bytes: 2000 })
      t.match(one, { intact: true, error: undefined })
      milliseconds.push(one.seconds * 1000)
      await sleep(200)
    }
    return median(milliseconds)
  }
  const measure = async () => {
    const downloads = world.client.call('compete', target, 4, 1500, 4000)
    await sleep(2000)
    const [shares, smallMs] = await Promise.all([downloads, small()])
    const rate = (shares.reduce((all, one) => all + one, 0) * 8) / 4e6
    t.comment(`${shares.map((bytes) => (bytes / 1e6).toFixed(1)).join(', ')} MB: ${rate.toFixed(0)} Mbit/s`)
    t.comment(`Jain's index ${jain(shares).toFixed(3)}; a small request takes ${smallMs.toFixed(0)} ms`)
    return { index: jain(shares), rate, smallMs }
  }
  const { index, rate, smallMs } = await remeasure(measure, (one) => one.index > 0.8 && one.rate > 32 && one.smallMs < 300)
  t.ok(index > 0.8, `Jain's index ${index.toFixed(3)}`)
  t.ok(rate > 32, `${rate.toFixed(1)} Mbit/s is more than either WAN carries`)
  t.ok(smallMs < 300, `a small request takes ${smallMs.toFixed(0)} ms`)
})
