/** How equally connections share what there is. */
import { ports, sleep, type World } from './hybrid.js'

/** Jain's index of fairness: 1 where all get the same, 1/n where one gets all. */
export function jain(shares: readonly number[]): number {
  const sum = shares.reduce((all, one) => all + one, 0)
  return sum ** 2 / (shares.length * shares.reduce((all, one) => all + one ** 2, 0))
}

/** `count` uploads that begin at once: the bytes of each that its server gets between `fromMs` and `untilMs`. */
export async function shareUploads(world: World, count: number, fromMs: number, untilMs: number): Promise<number[]> {
  const received = async () => {
    const text = await world.execute('server')('ss', '-tinHO', 'state', 'established', `sport = :${ports.sink}`)
    const lines = [...text.matchAll(/:\d+ +(\S+:\d+) .*\bbytes_received:(\d+)/g)]
    return new Map(lines.map(([, peer = '', bytes]) => [peer, Number(bytes)]))
  }
  const uploads = world.client.call('uploads', { host: world.lab.addresses.server, port: ports.sink }, count, untilMs + 1000)
  await sleep(fromMs)
  const before = await received()
  await sleep(untilMs - fromMs)
  const after = await received()
  const ended = await uploads
  if (ended > 0) throw new Error(`${ended} of ${count} uploads were reset`)
  const shares = [...after].map(([peer, bytes]) => bytes - (before.get(peer) ?? 0))
  return [...shares, ...Array<number>(Math.max(0, count - shares.length)).fill(0)]
}
