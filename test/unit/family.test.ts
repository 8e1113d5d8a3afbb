import t from 'tap'
import type { WanPath } from '../../src/gateway/model.js'
import { bestFamily, withoutHag } from '../../src/gateway/steering/family.js'
import { wanPath } from '../support/wan-path.js'

type State = 'usable' | 'lost' | 'unknown'
const all = new Set(['dsl', 'lte'])
const paths = (states: Record<string, State>): WanPath[] =>
  Object.entries(states).map(([wan, state]) => ({ ...wanPath(wan, wan), usable: state === 'usable', lost: state === 'lost' }))

t.test('the family that most WANs in use have, without a change where both are as good', async (t) => {
  const of = (four: Record<string, State>, six: Record<string, State>, current?: 4 | 6, inUse = all) =>
    bestFamily({ 4: paths(four), 6: paths(six) }, inUse, current)
  const both = { dsl: 'usable', lte: 'usable' } as const
  t.equal(of(both, { dsl: 'usable' }), 4, 'a WAN without IPv6')
  t.equal(of(both, { dsl: 'usable', lte: 'lost' }, 6), 4, 'one with IPv6 in name only')
  t.equal(of({ dsl: 'usable' }, both, 4), 6, 'a WAN without IPv4')
  t.equal(of(both, both), 4)
  t.equal(of(both, both, 6), 6)
  t.equal(of(both, both, 4), 4)
  t.equal(of({ dsl: 'usable', lte: 'lost' }, { dsl: 'usable' }, 6), 6, 'the other WAN is down')
  t.equal(of({ dsl: 'unknown', lte: 'unknown' }, { dsl: 'unknown' }), 4, 'before anybody has answered')
  t.equal(of({ dsl: 'unknown' }, { dsl: 'unknown', lte: 'unknown' }), 6)
  t.equal(of({ dsl: 'lost', lte: 'lost' }, { dsl: 'usable' }), 6)
  t.equal(of(both, { dsl: 'usable' }, 6, new Set(['dsl'])), 6, 'the WAN that is kept for later does not count')
  t.equal(of({}, {}), 4)
})

t.test('a WAN that no HAG address can use', async (t) => {
  const both = { name: 'dsl', interface: 'dsl', address4: '10.1.0.2', address6: '2001:db8::2' }
  const four = { name: 'lte', interface: 'lte', address4: '10.2.0.2' }
  const six = { name: 'cable', interface: 'cable', address6: '2001:db8:3::2' }
  const none = { name: 'off', interface: 'off' }
  const wans = [both, four, six, none]
  t.same(withoutHag(wans, [4]), ['WAN cable is not in the bundle: it has no IPv4 address, and no HAG has an IPv6 one'])
  t.same(withoutHag(wans, [6]), ['WAN lte is not in the bundle: it has no IPv6 address, and no HAG has an IPv4 one'])
  t.same(withoutHag(wans, [4, 6]), ['WAN cable is not in the bundle: it has no IPv4 address, and more WANs have IPv4 than IPv6'])
  t.same(withoutHag([both, none], [4, 6]), [])
  t.same(withoutHag(wans, []), [], 'nothing is known of HAGs yet')
})
