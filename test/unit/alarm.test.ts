/** A loop's wait for its next due moment. */
import t from 'tap'
import { Alarm } from '../../src/base/alarm.js'
import { virtualTime } from '../support/virtual-time.js'

t.test('waits for the time, for who rings, and for the end', async (t) => {
  const time = virtualTime(t)
  const [alarm, end] = [new Alarm(), new AbortController()]
  let isOver = false
  const wait = async (milliseconds: number) => {
    isOver = false
    void alarm.wait(milliseconds, end.signal).then(() => {
      isOver = true
    })
    await time.settle()
    return isOver
  }
  const after = async (milliseconds: number) => {
    await time.advance(milliseconds)
    await time.settle()
    return isOver
  }
  t.notOk(await wait(1000))
  t.same([await after(999), await after(1)], [false, true])
  t.notOk(await wait(Number.POSITIVE_INFINITY), 'it does not end at once, as setTimeout would')
  t.notOk(await after(20 * 86_400_000))
  alarm.ring()
  alarm.ring()
  t.ok(await after(0))
  t.ok(await wait(1000), 'rung while nobody waited')
  t.notOk(await wait(1000), 'once')
  end.abort()
  t.ok(await after(0))
  t.ok(await wait(1000))
})
