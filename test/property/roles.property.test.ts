import fc from 'fast-check'
import t from 'tap'
import { initial, select } from '../../src/gateway/roles/roles.js'
import type { Role } from '../../src/gateway/roles/selection.js'

const names = ['one', 'two', 'three']
const roles = fc.tuple(
  fc.constant<Role>('normal'),
  ...names.slice(1).map(() => fc.constantFrom<Role>('normal', 'overflow', 'backup')),
)
const rate = fc.oneof(fc.constant(0), fc.constant(2_500_000), fc.nat(4_000_000))
const report = fc.record({
  isUsable: fc.oneof({ weight: 4, arbitrary: fc.constant(true) }, fc.boolean()),
  rttMs: fc.option(fc.nat(2000), { nil: undefined }),
  receivedPerSecond: rate,
  sentPerSecond: rate,
  volumeExhausted: fc.oneof({ weight: 9, arbitrary: fc.constant(false) }, fc.boolean()),
})
const reports = fc.tuple(report, report, report)
const walk = fc.array(fc.tuple(reports, fc.constantFrom(50, 1000, 1000, 1000, 20_000)), { maxLength: 150 })

t.test('whatever comes in whatever order, something usable is used, and no backup beside a normal WAN', async (t) => {
  fc.assert(
    fc.property(roles, walk, (roles, steps) => {
      let state = initial(names)
      let now = 0
      for (const [all, waited] of steps) {
        now += waited
        const before = state.inUse
        const wans = all.map((one, index) => ({ ...one, name: names[index] ?? '', role: roles[index] ?? 'normal' }))
        state = select(state, wans, now)
        const used = wans.filter(({ name }) => state.inUse.has(name))
        const isBackup = ({ role, volumeExhausted }: (typeof wans)[number]) => role === 'backup' || volumeExhausted
        if (used.length === 0) return false
        if (wans.some(({ isUsable }) => isUsable) && !used.every(({ isUsable }) => isUsable)) return false
        if (wans.some((wan) => wan.isUsable && !isBackup(wan)) && used.some(isBackup)) return false
        // Every change of a WAN that works is explained. Of others their health has said all; while none is up they are used by name only.
        const isSilent = ({ name }: (typeof wans)[number]) =>
          state.inUse.has(name) !== before.has(name) && !state.reasons.has(name)
        if (wans.some((wan) => wan.isUsable && isSilent(wan))) return false
      }
      return true
    }),
    { numRuns: 500 },
  )
  t.pass()
})

t.test('without a change of health a WAN changes at most 8 times a minute, whatever the rates', async (t) => {
  fc.assert(
    fc.property(roles, fc.array(reports, { minLength: 120, maxLength: 240 }), (roles, seconds) => {
      let state = initial(names)
      const changes = new Map<string, number[]>()
      for (const [second, all] of seconds.entries()) {
        const before = state.inUse
        const wans = all.map((one, index) => ({
          ...one,
          isUsable: true,
          volumeExhausted: false,
          name: names[index] ?? '',
          role: roles[index] ?? 'normal',
        }))
        state = select(state, wans, second * 1000)
        for (const name of names) {
          if (state.inUse.has(name) === before.has(name)) continue
          const times = [...(changes.get(name) ?? []), second].filter((at) => second - at < 60)
          if (times.length > 8) return false
          changes.set(name, times)
        }
      }
      return true
    }),
    { numRuns: 100 },
  )
  t.pass()
})
