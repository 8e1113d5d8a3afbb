/** How connections begin and end, as both ends see it through the gateway and the HAG. */
import t from 'tap'
import { ports, remeasure, settle, World } from '../support/hybrid.js'
import { needsRoot } from '../support/namespaces.js'

/** What a refused LAN client may see: its handshake was with the gateway, so mostly a RST. */
const refusal = /^(ECONNRESET|ECONNREFUSED|EPIPE)$/

t.test('beginnings and endings', { skip: needsRoot }, async (t) => {
  const { client, server, lab, hag } = await World.run(t, { shaped: false, gateway: { on_hag_down: 'reject' } })

  for (const [family, host] of Object.entries({ IPv4: lab.addresses.server, IPv6: lab.addresses.server6 })) {
    t.test(`${family}: a server that speaks first is heard`, async (t) => {
      const talk = await client.call('talk', { host, port: ports.greeter }, '', 1)
      t.match(talk, { received: '220 at your service\r\n', ending: 'open' })
    })

    t.test(`${family}: a refused port resets the client, at once`, async (t) => {
      const { ending, ms } = await remeasure(
        () => client.call('talk', { host, port: 1 }),
        (talk) => talk.ms < 1000,
      )
      t.match(ending, refusal)
      t.ok(ms < 1000, `after ${ms.toFixed(0)} ms`)
    })

    t.test(`${family}: a server that aborts resets the client`, async (t) => {
      t.match(await client.call('talk', { host, port: ports.aborter }, 'x'), { ending: 'ECONNRESET' })
    })

    t.test(`${family}: a client that aborts resets the server, one that ends does not`, async (t) => {
      const before = (await server.call('endings')).length
      for (const [how, ending] of [['rst', 'ECONNRESET'] as const, ['fin', 'end'] as const]) {
        await client.call('hold', { host, port: ports.witness }, 3)
        await client.call('release', how)
        const count = before + (how === 'rst' ? 3 : 6)
        const endings = await settle(
          () => server.call('endings'),
          (seen) => seen.length >= count,
        )
        t.same(endings.slice(count - 3), Array(3).fill(ending), how)
      }
    })
  }

  t.test('an unreachable server resets the client', async (t) => {
    const { ending } = await client.call('talk', { host: '192.0.2.77', port: 80 }, '')
    t.match(ending, refusal)
  })

  t.test('when no path is left the client is reset', async (t) => {
    await hag.end()
    const { ending } = await client.call('talk', { host: lab.addresses.server, port: ports.echo }, 'x')
    t.match(ending, refusal)
  })
})
