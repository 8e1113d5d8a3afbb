/** HAGs that do not serve every address of the gateway's: it says so, and begins nothing there; what they serve is bonded. */
import { existsSync } from 'node:fs'
import t, { type Test } from 'tap'
import { startDante } from '../support/dante.js'
import { ports, remeasure, settle, World } from '../support/hybrid.js'
import { needsRoot } from '../support/namespaces.js'

const dsl = '10.1.0.0/24'
const skipDante = needsRoot || (!existsSync('/usr/sbin/danted') && 'needs danted (package dante-server)')
const asMessages = (output: string) => output.split('\n').map((line) => /"message":"(.*?)"\}/.exec(line)?.[1] ?? '')

async function setUp(t: Test) {
  const world = await World.create(t)
  const { server: host, hag } = world.lab.addresses
  const get = (bytes: number, port: number = ports.source) => world.client.call('download', { host, port, bytes })
  const refusal = (wan: string, from: string) => `HAG ${hag}:1080 refuses us over WAN ${wan}, from ${from}: `
  /** Bytes of a download over each WAN. */
  const bonded = async () => {
    const before = await world.lab.wanBytes()
    t.match(await get(8_000_000), { intact: true, error: undefined })
    const after = await world.lab.wanBytes()
    return { dsl: (after.dsl?.down ?? 0) - (before.dsl?.down ?? 0), lte: (after.lte?.down ?? 0) - (before.lte?.down ?? 0) }
  }
  const isBonded = ({ dsl, lte }: { dsl: number; lte: number }) => dsl > 1_000_000 && lte > 1_000_000
  return { world, get, refusal, bonded, isBonded }
}

t.test('a HAG that lists the address of one WAN only', { skip: needsRoot }, async (t) => {
  const { world, get, refusal, bonded, isBonded } = await setUp(t)
  let hag = await world.startHag({ clients: [dsl] })
  const gateway = await world.startGateway()
  const line = `${refusal('lte', '10.2.0.2')}our address is not in its \`clients\``
  t.ok(
    await settle(
      () => gateway.output.includes(line),
      (is) => is,
      20_000,
    ),
  )
  await hag.waitFor(/refused 10\.2\.0\.2: not in `clients`/)
  t.ok(isBonded(await remeasure(bonded, isBonded)), 'what begins over the other WAN is joined by it')
  t.notMatch(gateway.output, /WAN lte is down/)

  await world.lab.blackHole('dsl', true)
  await gateway.waitFor(/WAN dsl is down/)
  t.match(await get(100_000), { intact: true, error: undefined }, 'direct over the WAN that the HAG does not know')
  await world.lab.blackHole('dsl', false)
  await gateway.waitFor(/WAN dsl is up[\s\S]*WAN dsl is up/, 20_000)

  await hag.end()
  // LTE is metered: there it is asked again when the HAG comes back, or after 15 minutes.
  await gateway.waitFor(/HAG \S+ is down/)
  hag = await world.startHag()
  await gateway.waitFor(/HAG \S+ serves us over WAN lte, from 10\.2\.0\.2/, 40_000)
  t.equal(asMessages(gateway.output).filter((one) => one.startsWith(refusal('lte', '10.2.0.2'))).length, 1, 'said once')
})

t.test('a HAG that lists none of our addresses', { skip: needsRoot }, async (t) => {
  const { world, get, refusal } = await setUp(t)
  await world.startHag({ clients: ['172.16.0.0/12'] })
  const gateway = await world.startGateway()
  t.match(await get(100_000), { intact: true, error: undefined }, 'it goes direct')
  for (const [wan, from] of [
    ['dsl', '10.1.0.2'],
    ['lte', '10.2.0.2'],
  ] as const)
    t.ok(
      asMessages(gateway.output).some((one) => one.startsWith(refusal(wan, from))),
      `${wan} is named`,
    )
})

t.test("somebody else's HAG", { skip: skipDante }, async (t) => {
  const { world, get, refusal, bonded, isBonded } = await setUp(t)
  const everybody = 'from: 0.0.0.0/0 to: 0.0.0.0/0'
  const target = world.lab.addresses.server
  const lists = (key: 'client' | 'socks', network: string) => {
    const others = key === 'client' ? `socks pass { ${everybody} command: connect }` : `client pass { ${everybody} }`
    return `${key} pass { from: ${network} to: 0.0.0.0/0 ${key === 'socks' ? 'command: connect' : ''} }\n${others}`
  }

  for (const [key, why] of [
    ['client', /it closes the connection without an answer/],
    ['socks', /it refuses every request \(reply 2\)/],
  ] as const) {
    await t.test(`its ${key} rules list the address of one WAN only`, async (t) => {
      const danted = await startDante(t, world, 'hag', 'none', lists(key, dsl))
      const gateway = await world.startGateway()
      const isSaid = () => asMessages(gateway.output).find((one) => one.startsWith(refusal('lte', '10.2.0.2')))
      t.match(await settle(isSaid, (one) => one !== undefined, 20_000), why)
      t.ok(isBonded(await remeasure(bonded, isBonded)), 'bonded all the same')
      t.notMatch(gateway.output, /WAN lte is down|HAG \S+ is down|refuses us over WAN dsl/)
      await gateway.end()
      await danted.end()
    })
  }

  await t.test('its rules list none of our addresses', async (t) => {
    const danted = await startDante(t, world, 'hag', 'none', lists('socks', '172.16.0.0/12'))
    const gateway = await world.startGateway()
    for (let count = 0; count < 8; count++) t.match(await get(10_000), { intact: true, error: undefined }, 'it goes direct')
    const isSaid = () => asMessages(gateway.output).find((one) => one.startsWith(refusal('dsl', '10.1.0.2')))
    t.match(await settle(isSaid, (one) => one !== undefined, 20_000), /it refuses every request/)
    await gateway.end()
    await danted.end()
  })

  await t.test('its rules forbid a destination only', async (t) => {
    const danted = await startDante(
      t,
      world,
      'hag',
      'none',
      `client pass { ${everybody} }\nsocks block { from: 0.0.0.0/0 to: ${target}/32 }\nsocks pass { ${everybody} command: connect }`,
    )
    const gateway = await world.startGateway()
    for (let count = 0; count < 8; count++) t.match(await get(10_000), { intact: true, error: undefined }, 'it goes direct')
    t.notMatch(gateway.output, /refuses us/)
    await gateway.end()
    await danted.end()
  })
})
