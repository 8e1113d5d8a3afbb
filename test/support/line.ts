/** What a lab's WAN does to a connection that fills it, as the sender's kernel measures it, because programs on a slow machine are late. */
import { setTimeout as sleep } from 'node:timers/promises'
import { execute, must } from '../../src/lab/commands.js'
import { filePort } from '../../src/lab/download.js'
import type { Lab, LabWan } from '../../src/lab/lab.js'

export interface Line {
  /** The shortest and the longest round trip, ms. */
  minMs: number
  maxMs: number
  /** Mbit/s on the line, counted as `LinkDirection` does, while it was full. */
  rate: number
  /** Packets that the queue dropped. */
  lost: number
}

/**
 * Reno, which every kernel has, sends down the WAN for some seconds, in segments of so many bytes; the lab's file server runs, and no gateway. Puts the LAN's
 * traffic on this WAN.
 */
export async function measureLine(lab: Lab, wan: LabWan, seconds: number, segmentBytes: number): Promise<Line> {
  const inHost = (host: string, ...argv: string[]) => must(lab.argv(host, argv))
  await inHost('server', 'sysctl', '-qw', 'net.ipv4.tcp_congestion_control=reno')
  await inHost('cpe', 'ip', 'route', 'replace', 'default', 'via', wan.gateway4, 'dev', wan.interface)
  await inHost('lan', 'ip', 'route', 'replace', 'default', 'via', lab.addresses.cpe, 'advmss', String(segmentBytes))
  const url = `http://${lab.addresses.server}:${filePort}/1000000000`
  const download = execute(lab.argv('lan', ['curl', '-s', '-o', '/dev/null', '--max-time', String(seconds + 1), url]))
  const line: Line = { minMs: Number.NaN, maxMs: 0, rate: 0, lost: 0 }
  const look = async () => {
    const text = await inHost('server', 'ss', '-Htin', 'state', 'established', `sport = :${filePort}`)
    const figure = (pattern: RegExp) => Number(pattern.exec(text)?.[1] ?? 0)
    line.minMs = figure(/\bminrtt:([\d.]+)/) || line.minMs
    line.maxMs = Math.max(line.maxMs, figure(/\brtt:([\d.]+)/))
    line.lost = figure(/\bretrans:\d+\/(\d+)/)
    const bytes = (await lab.wanBytes())[wan.name]?.down ?? 0
    return { at: performance.now(), bytes }
  }
  const startedAt = performance.now()
  const isOver = (seconds: number) => performance.now() - startedAt > seconds * 1000
  let [first, last] = [await look(), await look()]
  while (!isOver(seconds)) {
    await sleep(100)
    last = await look()
    // Slow start is over by then.
    if (!isOver(seconds / 3)) first = last
  }
  line.rate = ((last.bytes - first.bytes) * 8) / 1000 / (last.at - first.at)
  await download
  return line
}
