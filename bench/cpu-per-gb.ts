/**
 * CPU time per GB that a redirector spends, side by side in one run: redsocks (splice on, under mptcpize) and `bondsocks run`, both to
 * the same `bondsocks hag` in an unshaped lab, by turns, medians of the repetitions. Usage: npm run bench [GB [REPETITIONS]]
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { ports, World } from '../test/support/hybrid.js'
import { cpuSeconds } from '../test/support/proc.js'
import { bondsocks, type Program, start } from '../test/support/process.js'

const gigabytes = Number(process.argv[2] ?? 1)
const repetitions = Number(process.argv[3] ?? 3)
const bytes = gigabytes * 1e9

const undo: (() => unknown)[] = []
const scope = { teardown: (handler: () => unknown) => undo.push(handler) }
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => cleanUp().then(() => process.exit(130)))

async function cleanUp(): Promise<void> {
  for (const handler of undo.splice(0).reverse()) await handler()
}

const median = (values: number[]) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN

async function main(): Promise<void> {
  const world = await World.create(scope, { shaped: false })
  const hag = await world.startHag()
  const host = world.lab.addresses.server
  const cpe = world.execute('cpe')

  const redsocks = async (): Promise<[Program, () => Promise<unknown>]> => {
    const { address, port } = { address: world.lab.addresses.hag, port: 1080 }
    const file = world.file(
      'redsocks.conf',
      `base { log_debug = off; log_info = off; log = stderr; daemon = off; redirector = iptables; }
redsocks { local_ip = 0.0.0.0; local_port = 12346; ip = ${address}; port = ${port}; type = socks5; splice = true; }
`,
    )
    const program = start(scope, world.lab.argv('cpe', ['mptcpize', 'run', 'redsocks', '-c', file]))
    // The same network set-up as ours, with LAN connections sent to its port.
    await cpe(...bondsocks('apply', '-c', world.config('gateway', { listen: { port: 12346 } })))
    await sleep(500)
    return [program, () => cpe(...bondsocks('remove'))]
  }
  const ourselves = async (): Promise<[Program, () => Promise<unknown>]> => [await world.startGateway(), async () => {}]

  const results: Record<string, Record<'down' | 'up', number[]>> = {}
  for (let repetition = 0; repetition < repetitions; repetition++) {
    for (const [name, begin] of Object.entries({ redsocks, bondsocks: ourselves })) {
      const [program, end] = await begin()
      for (const direction of ['down', 'up'] as const) {
        const before = cpuSeconds(program.pid)
        const hagBefore = cpuSeconds(hag.pid)
        const transfer =
          direction === 'down'
            ? await world.client.call('download', { host, port: ports.source, bytes })
            : await world.client.call('halfClose', { host, port: ports.sink, bytes, back: 0 })
        if (!transfer.intact) throw new Error(`${name}: ${JSON.stringify(transfer)}`)
        const used = (cpuSeconds(program.pid) - before) / gigabytes
        const byHag = (cpuSeconds(hag.pid) - hagBefore) / gigabytes
        const rate = bytes / transfer.seconds / 1e6
        console.log(
          `${name.padEnd(9)} ${direction.padEnd(4)} ${used.toFixed(2)} s/GB, HAG ${byHag.toFixed(2)} s/GB, ${rate.toFixed(0)} MB/s`,
        )
        results[name] ??= { down: [], up: [] }
        results[name][direction].push(used)
      }
      await end()
      await program.end()
    }
  }
  console.log(`\nCPU seconds per GB (median of ${repetitions})`)
  for (const direction of ['down', 'up'] as const) {
    const [theirs, ours] = ['redsocks', 'bondsocks'].map((name) => median(results[name]?.[direction] ?? []))
    if (theirs === undefined || ours === undefined) continue
    console.log(
      `  ${direction.padEnd(5)} redsocks ${theirs.toFixed(2)}  bondsocks ${ours.toFixed(2)}  ratio ${(ours / theirs).toFixed(2)}`,
    )
  }
}

try {
  await main()
} finally {
  await cleanUp()
}
