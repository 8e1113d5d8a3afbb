/** What scenarios measure with: traffic in the LAN, the bytes of each WAN read often, and the processor time of a program. */
import { readFileSync } from 'node:fs'
import { must } from './commands.js'
import type { Lab } from './lab.js'
import { nodeArgv } from './node.js'
import type { LabProgram } from './program.js'
import type { Stage } from './scenario.js'
import { type Dialled, now, type Pause, type StreamReport, trafficPort } from './traffic.js'

/** A client that runs until it is stopped. */
export interface Running<Report> {
  program: LabProgram
  stop(): Promise<Report>
}

/** One connection from the LAN to the server, at so many Mbit/s; 0: as fast as it goes. */
export const startStream = (stage: Stage, mbit: number) => startClient<StreamReport>(stage, 'stream', [mbit])

/** New connections from the LAN to the server. */
export const startDialling = (stage: Stage, bytes: number, everyMs: number) =>
  startClient<Dialled[]>(stage, 'dial', [bytes, everyMs])

async function startClient<Report>(stage: Stage, verb: string, numbers: number[]): Promise<Running<Report>> {
  const argv = [...nodeArgv('lab/programs/traffic'), verb, stage.lab.addresses.server, trafficPort, ...numbers].map(String)
  const program = await stage.start(`the ${verb} in the LAN`, 'lan', argv, 'started')
  return {
    program,
    async stop() {
      program.signal('SIGTERM')
      await program.exited
      return JSON.parse(program.output.trim().split('\n').at(-1) ?? '')
    },
  }
}

/** It is a miss if a byte was wrong, or if the connection ended before it was stopped. */
export function requireIntact(stage: Stage, what: string, { intact, ending, bytes }: StreamReport): void {
  if (!intact) stage.miss(`${what}: a byte was lost or changed within the first ${bytes}`)
  if (ending !== 'stopped') stage.miss(`${what} broke off after ${bytes} bytes: ${ending}`)
}

/** The longest pause that ended within the time; 0 if none was recorded. */
export function longestPause({ pauses }: { pauses: readonly Pause[] }, from: number, to: number): number {
  return Math.max(0, ...pauses.filter(({ until }) => until > from && until <= to).map(({ ms }) => ms))
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((one, other) => one - other)
  return ((sorted[(sorted.length - 1) >> 1] ?? Number.NaN) + (sorted[sorted.length >> 1] ?? Number.NaN)) / 2
}

export function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length
}

interface Counters {
  at: number
  /** Bytes towards the CPE, by WAN. */
  down: Record<string, number>
}

/** Reads the WANs' counters every few milliseconds, for which `ip -s link` is too slow. */
export class WanRecorder {
  readonly #samples: Counters[] = []
  readonly #timer: NodeJS.Timeout

  /** `pid`: any process of the CPE. */
  constructor({ wans }: Lab, pid: number, everyMs = 5) {
    const read = () => {
      const text = readFileSync(`/proc/${pid}/net/dev`, 'utf8')
      const bytesOf = (device: string) => Number(new RegExp(`^ *${device}: *(\\d+)`, 'm').exec(text)?.[1] ?? 0)
      this.#samples.push({ at: now(), down: Object.fromEntries(wans.map((wan) => [wan.name, bytesOf(wan.interface)])) })
    }
    read()
    this.#timer = setInterval(() => {
      try {
        read()
      } catch {
        // The process has ended.
        this.stop()
      }
    }, everyMs)
  }

  stop(): void {
    clearInterval(this.#timer)
  }

  /** Bytes that came by a WAN from one moment to another. */
  between(wan: string, from: number, to: number): number {
    const until = (at: number) => (this.#samples.findLast((one) => one.at <= at) ?? this.#samples[0])?.down[wan] ?? 0
    return until(to) - until(from)
  }

  /** When the WAN had brought more than so many bytes since that moment; undefined if it has not. */
  reached(wan: string, since: number, bytes: number): number | undefined {
    const start = this.#samples.findLast((one) => one.at <= since)?.down[wan] ?? 0
    return this.#samples.find((one) => one.at > since && (one.down[wan] ?? 0) - start > bytes)?.at
  }

  /** Waits for that; undefined if it does not happen within `patienceMs`. */
  async awaitBytes(wan: string, since: number, bytes: number, patienceMs: number): Promise<number | undefined> {
    const deadline = performance.now() + patienceMs
    for (;;) {
      const at = this.reached(wan, since, bytes)
      if (at !== undefined || performance.now() > deadline) return at
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  }
}

/** Established subflows of the gateway to HAGs that have received more than a probe does. */
export async function hagSubflows({ lab }: Stage): Promise<{ wan: string; isMptcp: boolean; socket: string }[]> {
  const addresses = JSON.parse(await must(lab.argv('cpe', ['ip', '-j', 'address', 'show']))) as {
    ifname: string
    addr_info: { local: string }[]
  }[]
  const argv = ['ss', '--no-header', '-tniO', 'state', 'established', 'dport', '=', ':1080']
  return (await must(lab.argv('cpe', argv))).split('\n').flatMap((line) => {
    const [, socket = '', address] = /^\d+\s+\d+\s+(\[?([\w.:]+?)\]?(?:%\S+)?:\d+\s+\S+)/.exec(line) ?? []
    const device = addresses.find(({ addr_info }) => addr_info.some(({ local }) => local === address))?.ifname
    const wan = lab.wans.find((one) => one.interface === device)?.name
    if (wan === undefined || Number(/bytes_received:(\d+)/.exec(line)?.[1] ?? 0) < probeBytes) return []
    // M and J: the other end agreed to MP_CAPABLE or MP_JOIN.
    return { wan, isMptcp: /tcp-ulp-mptcp flags:\S*[MJ]/.test(line), socket }
  })
}

const probeBytes = 2000

/** It is a miss if a new stream does not use MPTCP over exactly these WANs, or does not arrive intact. */
export async function requireMptcp(stage: Stage, what: string, wanted: readonly string[]): Promise<void> {
  const old = (await hagSubflows(stage)).map(({ socket }) => socket)
  const stream = await startStream(stage, 2)
  let subflows: Awaited<ReturnType<typeof hagSubflows>> = []
  const isRight = () => {
    const used = new Set(subflows.filter(({ isMptcp }) => isMptcp).map(({ wan }) => wan))
    return wanted.every((one) => used.has(one)) && used.size === wanted.length
  }
  // On a busy machine a subflow joins later.
  for (let looks = 0; looks < 5 && !isRight(); looks++) {
    await stage.sleep(1)
    subflows = (await hagSubflows(stage)).filter(({ socket }) => !old.includes(socket))
  }
  requireIntact(stage, what, await stream.stop())
  if (isRight()) return
  const found = subflows.map(({ wan, isMptcp }) => `${wan} (${isMptcp ? 'MPTCP' : 'TCP'})`).join(', ')
  stage.miss(`${what} uses ${found || 'no HAG'}, not MPTCP over ${wanted.join(' and ')}`)
}

/** Milliseconds of processor time that a process has used, with its threads and its ended children. */
export function cpuMs(pid: number): number {
  // The name, in brackets, may hold spaces; utime, stime, cutime and cstime are the fields 14 to 17, in ticks of 10 ms.
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /, '')
    .split(' ')
  return fields.slice(11, 15).reduce((sum, ticks) => sum + Number(ticks) * 10, 0)
}
