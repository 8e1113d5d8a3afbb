import t from 'tap'
import { Flow, flowTickMs } from '../../src/gateway/wans/traffic-watch.js'

/** Looks at a counter that grows in the ticks marked `#`; returns the ticks in which the flow was found to have stopped. */
function watch(ticks: string, patienceMs = 90): number[] {
  const flow = new Flow()
  let received = 0
  const stops: number[] = []
  for (const [index, tick] of [...ticks].entries()) {
    if (tick === '#') received += 1000
    flow.look({ received, sent: 0 }, index * flowTickMs)
    if (flow.stopped(patienceMs, index * flowTickMs)) stops.push(index)
  }
  return stops
}

t.test('a steady stream that stops is noticed once, after the patience', async (t) => {
  t.same(watch('.#######..........'), [9])
  t.same(watch('.#######..........', 200), [11])
  t.same(watch('.#.##.##.##.........'), [12], 'a look without bytes now and then is steady enough')
})

t.test('what never was steady does not stop', async (t) => {
  t.same(watch('.###.........'), [], 'a page that was fetched')
  t.same(watch('.#.#.#.#.#.#.#.........'), [], 'a question and an answer every 100 ms')
  t.same(watch('...............'), [])
})

t.test('a stream that goes on after a pause can stop again', async (t) => {
  t.same(watch('.########......########......'), [10, 24])
})

t.test('a pause that is shorter than the patience is none', async (t) => {
  t.same(watch('.######.######.'), [])
})

t.test('recent: within a second', async (t) => {
  const flow = new Flow()
  flow.look({ received: 0, sent: 0 }, 0)
  t.equal(flow.isRecent(0), false, 'a counter alone says nothing')
  flow.look({ received: 1, sent: 0 }, 10)
  t.equal(flow.isRecent(900), true)
  t.equal(flow.isRecent(1100), false)
})

t.test('what is sent and not answered is told once, after the patience', async (t) => {
  const flow = new Flow()
  const told: number[] = []
  let [received, sent] = [0, 0]
  for (let now = 0; now < 4000; now += flowTickMs) {
    if (now === 500 || now === 550) sent += 60
    if (now === 1500) received += 60
    if (now === 2000) sent += 60
    if (now === 2100) received += 60
    if (now === 3000) sent += 60
    flow.look({ received, sent }, now)
    if (flow.unanswered(300, now)) told.push(now)
  }
  t.same(told, [800, 3300])
})
