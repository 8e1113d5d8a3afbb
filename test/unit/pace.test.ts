import t from 'tap'
import { paceOf } from '../support/pace.js'
import { virtualTime } from '../support/virtual-time.js'

const time = virtualTime(t)

t.test('while clients are active each loop has its own pace; then all wake at the same moment, once a minute', async (t) => {
  const clients = { calmMs: 9999 }
  const pace = paceOf(clients)
  t.same(
    [50, 1000, 20_000].map((everyMs) => pace.after(everyMs)),
    [50, 1000, 20_000],
  )
  clients.calmMs = 10_000
  const wakes = [0, 7000, 33_000, 59_999].map((passedMs) => {
    time.now = 1_200_000 + passedMs
    return time.now + pace.after(1000)
  })
  t.same(wakes, [1_260_000, 1_260_000, 1_260_000, 1_260_999], 'and not sooner than it would while they are active')
})

t.test('who sleeps is woken when clients are active again', async (t) => {
  const pace = paceOf({ calmMs: 60_000 })
  const alarms = [pace.alarm(), pace.alarm()]
  let woken = 0
  const { signal } = new AbortController()
  for (const alarm of alarms) void alarm.wait(pace.after(1000), signal).then(() => (woken += 1))
  await time.settle()
  t.equal(woken, 0)
  pace.wake()
  await time.settle()
  t.equal(woken, 2)
})
