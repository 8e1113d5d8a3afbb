/** A download with curl in the LAN: checks the checksum, and measures what each WAN carries meanwhile. */
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { BondsocksError } from '../base/errors.js'
import { sha256Of } from './files.js'
import type { Lab } from './lab.js'

export interface Sample {
  /** Seconds since the start, at the end of the interval. */
  at: number
  /** Mbit/s on the line in the interval, by WAN. */
  wans: Record<string, number>
  /** Mbit/s of payload that curl received. */
  payload: number
}

export interface Download {
  bytes: number
  seconds: number
  /** Mbit/s of payload, from curl's start to its end. */
  average: number
  /** The longest time without a byte, seconds, and when it ended. */
  longestGap: { seconds: number; until: number }
  samples: Sample[]
}

export const filePort = 8080
const sampleMs = 1000

/** Downloads and verifies. Throws if curl fails or a byte is wrong. */
export async function download(
  lab: Lab,
  bytes: number,
  options: { onSample?(sample: Sample): void; signal: AbortSignal },
): Promise<Download> {
  const url = `http://${lab.addresses.server}:${filePort}/${bytes}`
  const [file = '', ...args] = lab.argv('lan', ['curl', '--silent', '--show-error', '--fail', '--max-time', '170', url])
  const before = await lab.wanBytes()
  const child = spawn(file, args, { stdio: ['ignore', 'pipe', 'pipe'], signal: options.signal })
  const started = performance.now()
  const seconds = () => (performance.now() - started) / 1000
  const hash = createHash('sha256')
  let received = 0
  let lastAt = 0
  let complaint = ''
  const longestGap = { seconds: 0, until: 0 }
  child.stdout.on('data', (data: Buffer) => {
    hash.update(data)
    received += data.length
    const at = seconds()
    if (at - lastAt > longestGap.seconds) Object.assign(longestGap, { seconds: at - lastAt, until: at })
    lastAt = at
  })
  child.stderr.on('data', (data: Buffer) => {
    complaint += data.toString()
  })

  const samples: Sample[] = []
  let last = { at: 0, received: 0, wans: before }
  const sample = async () => {
    const wans = await lab.wanBytes()
    const now = { at: seconds(), received, wans }
    const rate = (now: number, then: number, interval: number) => ((now - then) * 8) / 1e6 / interval
    const interval = now.at - last.at
    const one: Sample = {
      at: now.at,
      wans: Object.fromEntries(
        Object.keys(wans).map((wan) => [wan, rate(wans[wan]?.down ?? 0, last.wans[wan]?.down ?? 0, interval)]),
      ),
      payload: rate(now.received, last.received, interval),
    }
    last = now
    samples.push(one)
    options.onSample?.(one)
  }
  const timer = setInterval(() => sample().catch(() => {}), sampleMs)
  try {
    const code = await new Promise<number | null>((resolve, reject) => child.once('error', reject).once('close', resolve))
    const took = seconds()
    if (code !== 0) {
      const why = complaint.trim() || `exit code ${code}`
      throw new BondsocksError('LAB_DOWNLOAD', `the download failed after ${received} bytes: ${why}`)
    }
    if (hash.digest('hex') !== sha256Of(bytes)) {
      throw new BondsocksError('LAB_CHECKSUM', `the download of ${bytes} bytes arrived changed: its SHA-256 is wrong`)
    }
    return { bytes, seconds: took, average: (bytes * 8) / 1e6 / took, longestGap, samples }
  } finally {
    clearInterval(timer)
  }
}

/** The mean between two moments, without the first second (slow start): Mbit/s by WAN, and of payload. */
export function mean(
  samples: readonly Sample[],
  from: number,
  to = Number.POSITIVE_INFINITY,
): { wans: Record<string, number>; payload: number } {
  const chosen = samples.filter(({ at }) => at - 1 >= from && at <= to)
  const of = (value: (sample: Sample) => number) => chosen.reduce((sum, one) => sum + value(one), 0) / chosen.length
  const names = Object.keys(chosen[0]?.wans ?? {})
  return {
    wans: Object.fromEntries(names.map((name) => [name, of((one) => one.wans[name] ?? 0)])),
    payload: of((one) => one.payload),
  }
}
