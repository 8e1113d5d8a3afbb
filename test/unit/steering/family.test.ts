/** Which family connections to HAGs go by, if HAGs have addresses of both. */
import t from 'tap'
import { first, Steering, silences, six } from '../../support/steering.js'

type State = 'usable' | 'lost' | 'unknown'
const names = ['dsl', 'lte'] as const
type Name = (typeof names)[number]
type States = Partial<Record<Name, State>>
const addressOf = (name: Name, family: 4 | 6) =>
  family === 4 ? `10.${names.indexOf(name)}.0.2` : `2001:db8:${names.indexOf(name)}::2`

/** The family, after HAGs of one priority have become known over WANs in these states. `lte`: its role. */
function familyOf(four: States, six: States, { before, role = 'normal' }: { before?: 4 | 6; role?: 'normal' | 'backup' } = {}) {
  const steering = new Steering({
    onHagDown: 'direct',
    wans: names.map((name) => ({ name, interface: name, metered: false, role: name === 'lte' ? role : 'normal' })),
  })
  const plan = (four: States, six: States) => {
    const wans = names.map((name) => {
      const address4 = four[name] && { address4: addressOf(name, 4) }
      const address6 = six[name] && { address6: addressOf(name, 6) }
      return { name, interface: name, ...address4, ...address6 }
    })
    steering.take({ type: 'wans-planned', wans })
  }
  if (before !== undefined) plan(before === 4 ? { dsl: 'unknown' } : {}, before === 6 ? { dsl: 'unknown' } : {})
  steering.take({ type: 'hags-changed', hags: hags.map((hag) => ({ hag, priority: '0' })) })
  plan(four, six)
  // What is lost first, so that no WAN is better meanwhile.
  for (const [family, states] of [
    [4, four],
    [6, six],
  ] as const)
    for (const name of names) if (states[name] === 'lost') silences(steering, addressOf(name, family))
  for (const name of names)
    for (const [family, states] of before === 6
      ? ([
          [6, six],
          [4, four],
        ] as const)
      : ([
          [4, four],
          [6, six],
        ] as const))
      if (states[name] === 'usable') steering.take({ type: 'wan-answered', bind: addressOf(name, family), rttMs: 10 })
  return steering.target.family
}
const hags = [six, first]
const both: States = { dsl: 'usable', lte: 'usable' }

t.test('the family that most WANs in use have, without a change if both are as good', async (t) => {
  t.equal(familyOf(both, { dsl: 'usable' }), 4, 'a WAN without IPv6')
  t.equal(familyOf(both, { dsl: 'usable', lte: 'lost' }, { before: 6 }), 4, 'one with IPv6 in name only')
  t.equal(familyOf({ dsl: 'usable' }, both, { before: 4 }), 6, 'a WAN without IPv4')
  t.equal(familyOf(both, both), 4)
  t.equal(familyOf(both, both, { before: 6 }), 6)
  t.equal(familyOf(both, both, { before: 4 }), 4)
  t.equal(familyOf({ dsl: 'usable', lte: 'lost' }, { dsl: 'usable' }, { before: 6 }), 6, 'the other WAN is down')
  t.equal(familyOf({ dsl: 'unknown', lte: 'unknown' }, { dsl: 'unknown' }), 4, 'before anybody has answered')
  t.equal(familyOf({ dsl: 'unknown' }, { dsl: 'unknown', lte: 'unknown' }), 6)
  t.equal(familyOf({ dsl: 'lost', lte: 'lost' }, { dsl: 'usable' }), 6)
  t.equal(familyOf(both, { dsl: 'usable' }, { before: 6, role: 'backup' }), 6, 'the WAN that is kept for later does not count')
  t.equal(familyOf({}, {}), 4)
})
