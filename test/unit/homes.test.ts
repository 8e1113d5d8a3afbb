import t from 'tap'
import type { EngineEvent } from '../../src/engine/contract.js'
import { Homes } from '../../src/hag/homes.js'

const at = (address: string) => ({ address, port: 4000 })
const request = (connection: number, address: string): EngineEvent => ({
  type: 'request',
  connection,
  client: at(address),
  local: at('203.0.113.3'),
  host: '198.51.100.7',
  port: 80,
})
const closed = (connection: number, address: string, sent = 0, received = 0): EngineEvent => ({
  type: 'closed',
  connection,
  reason: 'end',
  client: at(address),
  sent,
  received,
  durationMs: 5,
})

t.test('by address: what is served now, and what ended connections moved', async (t) => {
  const homes = new Homes()
  homes.record(request(1, '10.1.0.2'))
  homes.record(request(2, '10.1.0.2'))
  homes.record(request(3, '10.2.0.2'))
  homes.record(closed(1, '10.1.0.2', 10, 200))
  // It never got as far as a request.
  homes.record(closed(9, '10.9.0.2', 1, 1))
  t.same(homes.read(), [
    { home: '10.1.0.2', connections: 1, served: 2, sent: 10, received: 200 },
    { home: '10.2.0.2', connections: 1, served: 1, sent: 0, received: 0 },
  ])
})

t.test('by user, if there are users', async (t) => {
  const homes = new Homes()
  for (const [connection, address] of [
    [1, '10.1.0.2'],
    [2, '10.2.0.2'],
  ] as const) {
    homes.record({ type: 'credentials', connection, client: at(address), username: 'ann', password: 'x' })
    homes.record(request(connection, address))
  }
  t.match(homes.read(), [{ home: 'ann', connections: 2, served: 2 }])
})

t.test('strangers that have left are forgotten, homes that are there are not', async (t) => {
  const homes = new Homes()
  homes.record(request(1, '10.1.0.2'))
  for (let id = 2; id < 3000; id++) {
    const address = `10.9.${id >> 8}.${id & 255}`
    homes.record(request(id, address))
    homes.record(closed(id, address))
  }
  const all = homes.read()
  t.equal(all.length, 1000)
  t.match(all[0], { home: '10.1.0.2', connections: 1 })
})

t.test('a home that is there is not forgotten, however many there are', async (t) => {
  const homes = new Homes()
  for (let id = 1; id <= 1200; id++) homes.record(request(id, `10.9.${id >> 8}.${id & 255}`))
  t.equal(
    homes.read().reduce((sum, { connections }) => sum + connections, 0),
    1200,
  )
})
