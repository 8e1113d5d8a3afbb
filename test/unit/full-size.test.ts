/** Paths that carry small packets only come last, and serve where there is no other. */
import t from 'tap'
import type { WanPath } from '../../src/gateway/model.js'
import { FullSize, passesFullSize } from '../../src/gateway/wans/full-size.js'

const path = (wan: string, more: Partial<WanPath> = {}): WanPath => ({
  wan,
  bind: wan,
  metered: false,
  usable: true,
  lost: false,
  rttMs: 20,
  leastRttMs: 20,
  protocol: 'mptcp',
  ...more,
})

t.test('without a connection nothing is known', async (t) => {
  const engine = { connect: async () => ({ ok: false as const, failure: { code: 'ETIMEDOUT', errno: 110, syscall: 'connect' } }) }
  t.equal(await passesFullSize(engine, { hag: { address: '192.0.2.1', port: 1080 }, bind: '192.0.2.2' }), undefined)
  const paths = [path('dsl'), path('lte')]
  const fullSize = new FullSize({
    engine,
    paths: () => paths,
    hags: () => [{ address: '192.0.2.1', port: 1080 }],
    onChange: () => t.fail('no news'),
    log: { info: () => t.fail('nothing to say'), warn: () => t.fail('nothing to say') },
  })
  t.same(fullSize.judge(paths), paths)
  t.same(fullSize.judge([]), [])
})
