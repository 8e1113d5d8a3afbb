/** What scenarios measure with: traffic in the LAN, the bytes of each WAN read often, and the processor time of a program. */
import { readFileSync } from 'node:fs'
import { BondsocksError } from '../shared/errors.js'
import type { Lab } from './lab.js'
import { nodeArgv } from './node.js'
import type { Program } from './program.js'
import type { Stage } from './scenario.js'
import { type Dialled, now, type Pause, type StreamReport, trafficPort } from './traffic.js'

/** A client that runs until it is stopped. */
export interface Running<Report> {
  program: Program
  stop(): Promise<Report>
}

export async function startTrafficServer(stage: Stage): Promise<void> {
  await stage.start('the traffic server', 'server', [...nodeArgv('lab/traffic'), 'serve', String(trafficPort)], 'serving')
}

/** One connection from the LAN to the server: Mbit/s, or 0 for as fast as it goes. */
export const startStream = (stage: Stage, mbit: number) => startClient<StreamReport>(stage, 'stream', [mbit])

/** New connections from the LAN to the server. */
export const startDialling = (stage: Stage, bytes: number, everyMs: number) =>
  startClient<Dialled[]>(stage, 'dial', [bytes, everyMs])

async function startClient<Report>(stage: Stage, verb: string, numbers: number[]): Promise<Running<Report>> {
  const argv = [...nodeArgv('lab/traffic'), verb, stage.lab.addresses.server, trafficPort, ...numbers].map(String)
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

/** Throws where a byte was wrong or the connection did not live until it was stopped. */
export function requireIntact(what: string, { intact, ending, bytes }: StreamReport): void {
  if (!intact) throw new BondsocksError('LAB_CHECKSUM', `${what}: a byte was lost or changed within the first ${bytes}`)
  if (ending !== 'stopped') throw new BondsocksError('LAB_BROKEN', `${what} broke off after ${bytes} bytes: ${ending}`)
}

/** The longest pause that ended within the time; 0 where none was worth noting. */
export function longestPause({ pauses }: { pauses: readonly Pause[] }, from: number, to: number): number {
  return Math.max(0, ...pauses.filter(({ until }) => until > from && until <= to).map(({ ms }) => ms))
}

export function median(values: readonly number[]): number {
  return [...values].sort((one, other) => one - other)[Math.floor(values.length / 2)] ?? Number.NaN
}

interface Counters {
  at: number
  /** Bytes towards the CPE, by WAN. */
  down: Record<string, number>
}

/** Reads what the WANs have brought, every few milliseconds: the shell's `ip -s link` is too slow for that. */
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

  /** When, after that moment, the WAN had brought more than so many bytes; undefined where it has not. */
  reached(wan: string, since: number, bytes: number): number | undefined {
    const start = this.#samples.findLast((one) => one.at <= since)?.down[wan] ?? 0
    return this.#samples.find((one) => one.at > since && (one.down[wan] ?? 0) - start > bytes)?.at
  }
}

/** Milliseconds of processor time that a process has used so far, with its threads and the children that have ended. */
export function cpuMs(pid: number): number {
  // The name, in brackets, may hold spaces; utime, stime, cutime and cstime are the fields 14 to 17, in ticks of 10 ms.
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /, '')
    .split(' ')
  return fields.slice(11, 15).reduce((sum, ticks) => sum + Number(ticks) * 10, 0)
}
