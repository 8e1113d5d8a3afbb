/** How equally connections share what there is. */
import { ports, sleep, type World } from './hybrid.js'

/** Jain's index of fairness: 1 where all get the same, 1/n where one gets all. */
export function jain(shares: readonly number[]): number {
  const sum = shares.reduce((all, one) => all + one, 0)
  return sum ** 2 / (shares.length * shares.reduce((all, one) => all + one ** 2, 0))
}

/**
 * `count` uploads that begin at once: the bytes of each that its server gets between `fromMs` and `untilMs`, and how long that was, as a busy
 * machine is late.
 */
export async function shareUploads(world: World, count: number, fromMs: number, untilMs: number) {
  const received = async () => {
    const text = await world.execute('server')('ss', '-tinHO', 'state', 'established', `sport = :${ports.sink}`)
    const at = performance.now()
    const lines = [...text.matchAll(/:\d+ +(\S+:\d+) .*\bbytes_received:(\d+)/g)]
    return { at, bytes: new Map(lines.map(([, peer = '', bytes]) => [peer, Number(bytes)])) }
  }
  await world.client.call('uploads', { host: world.lab.addresses.server, port: ports.sink }, count)
  await sleep(fromMs)
  const before = await received()
  await sleep(untilMs - fromMs)
  const after = await received()
  const ended = await world.client.call('endUploads')
  if (ended > 0) throw new Error(`${ended} of ${count} uploads were reset`)
  const shares = [...after.bytes].map(([peer, bytes]) => bytes - (before.bytes.get(peer) ?? 0))
  return { shares: [...shares, ...Array<number>(Math.max(0, count - shares.length)).fill(0)], ms: after.at - before.at }
}
