/** Every byte arrives, in each direction and many at once, between a LAN client and a server that know every byte. */
import t from 'tap'
import { ports, World } from '../support/hybrid.js'
import { needsRoot } from '../support/namespaces.js'

const gigabyte = 1_000_000_000
const megabyte = 1_000_000

t.test('byte-exact transfers', { skip: needsRoot }, async (t) => {
  const { client, lab, gateway, hag } = await World.run(t, {
    shaped: false,
    gateway: { log_level: 'debug' },
    hag: { log_level: 'debug' },
  })
  const host = lab.addresses.server

  t.test('1 GB from the server', async (t) => {
    const transfer = await client.call('download', { host, port: ports.source, bytes: gigabyte, seed: 11 })
    t.match(transfer, { intact: true, bytes: gigabyte, error: undefined })
    t.comment(`1 GB down, checked, ${((gigabyte * 8) / transfer.seconds / 1e6).toFixed(0)} Mbit/s`)
  })

  t.test('both ends log it, with what it was, although nobody was asked about it', async (t) => {
    for (const [program, via] of [
      [gateway, `"via":"HAG ${lab.addresses.hag}:1080 over (dsl|lte)",`],
      [hag, ''],
    ] as const) {
      const what = `"destination":"${host}:${ports.source}",${via}"reason":"end","sent":\\d+,"received":${gigabyte},"durationMs":\\d+`
      t.ok(await program.waitFor(new RegExp(what)))
    }
  })

  t.test('1 GB to the server; the client ends first', async (t) => {
    const transfer = await client.call('halfClose', { host, port: ports.sink, bytes: gigabyte, back: 1000, seed: 12 })
    t.match(transfer, { intact: true, bytes: 1000, error: undefined })
    t.comment(`1 GB up, checked, ${((gigabyte * 8) / transfer.seconds / 1e6).toFixed(0)} Mbit/s`)
  })

  t.test('200 downloads of 1 MB at once', async (t) => {
    t.same(await client.call('many', 'download', 200, { host, port: ports.source, bytes: megabyte }), [])
  })

  t.test('200 at once of 1 MB each way; the clients end first, the server answers then', async (t) => {
    t.same(await client.call('many', 'halfClose', 200, { host, port: ports.sink, bytes: megabyte }), [])
  })

  t.test('over IPv6', async (t) => {
    const target = { host: lab.addresses.server6, port: ports.sink }
    t.same(await client.call('many', 'halfClose', 20, { ...target, bytes: megabyte }), [])
  })
})
