/** Many that send and receive without an end, all at once, over up-links that are far too narrow for them: nobody is turned away. */
import t from 'tap'
import { median } from '../../src/lab/measure.js'
import { ports, sleep, World } from '../support/hybrid.js'
import { needsRoot } from '../support/namespaces.js'

t.test(
  'a hundred uploads and downloads begin at once: none is reset, and small requests get through',
  { skip: needsRoot },
  async (t) => {
    const world = await World.run(t, { hag: { drain_seconds: 0 } })
    await world.gateway.waitFor(/WAN lte is up/)
    const host = world.lab.addresses.server
    const crowd = world.client.call('crowd', { host, port: ports.torrent }, 100, 5000, 11_500)
    await sleep(2000)
    const milliseconds: number[] = []
    for (let index = 0; index < 8; index++) {
      const one = await world.client.call('download', { host, port: ports.source, bytes: 2000 })
      t.match(one, { intact: true, error: undefined }, 'a small request')
      milliseconds.push(one.seconds * 1000)
      await sleep(200)
    }
    const { ended, received, total } = await crowd
    t.notMatch(world.gateway.output, /HAG .* is down/, 'the HAG is busy, not dead')
    t.comment(`small requests: ${milliseconds.map((one) => one.toFixed(0)).join(', ')} ms`)
    t.comment(`${((received.reduce((all, one) => all + one, 0) * 8) / 6.5e6).toFixed(0)} Mbit/s down`)
    t.same(ended, [], 'none is reset')
    t.equal(total.filter((bytes) => bytes === 0).length, 0, 'and each receives something')
    t.ok(median(milliseconds) < 1000, `a small request takes ${median(milliseconds).toFixed(0)} ms`)
  },
)
