/** Does a WAN carry full-size packets? Where a tunnel on its path drops them without a word (no ICMP), greetings pass and downloads hang. */
import { Socket } from 'node:net'
import type { Family } from '../../base/address.js'
import { pause } from '../../base/pause.js'
import type { Engine } from '../../engine/contract.js'
import type { Target } from '../../engine/probe.js'
import type { Log } from '../../telemetry/log.js'
import { families, type WanPath } from '../model.js'

const lookMs = 500
/**
 * Some 2 kB a question: 1.5 MB a month where that costs nothing, 0.25 MB where it does. A path that was found to drop them is asked more
 * often, so that it is back soon.
 */
const againMs = { free: 3600_000, metered: 6 * 3600_000 }
const narrowAgainMs = { free: 30_000, metered: 600_000 }
const unknownAgainMs = 60_000
/** The kernel repeats the packet three times within it, and begins to try smaller ones (tcp_mtu_probing) only after 3 s. */
const answerMs = 2000
/** More than the segment of any WAN; jumbo frames end in the home. */
const fillBytes = 1600

export interface FullSizeOptions {
  engine: Pick<Engine, 'connect'>
  paths(family: Family): readonly WanPath[]
  /** Whom to ask, the first one first. */
  hags(family: Family): readonly Target['hag'][]
  log: Pick<Log, 'info' | 'warn'>
  onChange(): void
}

export class FullSize {
  readonly #options: FullSizeOptions
  /** By source address. */
  readonly #known = new Map<string, { isNarrow: boolean; dueAt: number }>()

  constructor(options: FullSizeOptions) {
    this.#options = options
  }

  /** A path that carries small packets only is lost as long as there is a better one. */
  judge(paths: readonly WanPath[]): WanPath[] {
    const isNarrow = ({ bind }: WanPath) => this.#known.get(bind)?.isNarrow === true
    if (!paths.some((path) => path.usable && !isNarrow(path))) return [...paths]
    const judged = paths.map((path) => (isNarrow(path) ? { ...path, usable: false, lost: true } : path))
    return [...judged.filter((path) => !isNarrow(path)), ...judged.filter(isNarrow)]
  }

  /** Routes or links are others: what drops full-size packets may be mended. */
  checkNow(): void {
    for (const [bind, { isNarrow }] of this.#known) if (isNarrow) this.#known.set(bind, { isNarrow, dueAt: 0 })
  }

  /** Runs until the signal. Never rejects. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await pause(lookMs, signal)
      const paths = families.flatMap((family) => this.#options.paths(family).map((path) => ({ family, path })))
      for (const bind of this.#known.keys()) if (!paths.some(({ path }) => path.bind === bind)) this.#known.delete(bind)
      const isDue = ({ path }: (typeof paths)[number]) =>
        path.usable && performance.now() >= (this.#known.get(path.bind)?.dueAt ?? 0)
      await Promise.all(paths.filter(isDue).map(({ family, path }) => this.#look(path, family, signal)))
    }
  }

  async #look({ wan, bind, metered }: WanPath, family: Family, signal: AbortSignal): Promise<void> {
    const { engine, hags, log, onChange } = this.#options
    const [hag] = hags(family)
    const wasNarrow = this.#known.get(bind)?.isNarrow ?? false
    const ask = () => (hag === undefined ? undefined : passesFullSize(engine, { hag, bind }))
    let passes = await ask()
    // One packet may have been lost, with all its repetitions.
    if (passes === false && !wasNarrow) passes = await ask()
    if (signal.aborted) return
    const cost = metered ? 'metered' : 'free'
    const isNarrow = passes === undefined ? wasNarrow : !passes
    const afterMs = passes === undefined ? unknownAgainMs : (isNarrow ? narrowAgainMs : againMs)[cost]
    this.#known.set(bind, { isNarrow, dueAt: performance.now() + afterMs })
    if (isNarrow === wasNarrow) return
    if (isNarrow)
      log.warn(
        `WAN ${wan} is down: full-size packets vanish on its path, small ones pass: lower its MTU (ip link set dev IFACE mtu 1400, say); until then it is used only where no other WAN works`,
      )
    else log.info(`WAN ${wan} carries full-size packets again`)
    onChange()
  }
}

/** Undefined where the HAG does not answer small packets either. */
export async function passesFullSize(engine: Pick<Engine, 'connect'>, { hag, bind }: Target): Promise<boolean | undefined> {
  const { address, port, username, password = '' } = hag
  const connected = await engine.connect({ protocol: 'tcp', remote: { address, port }, bind, connectTimeoutMs: answerMs })
  if (!connected.ok) return undefined
  const socket = new Socket({ fd: connected.fd })
  /** Whether anything came: an answer, an end, or a reset. */
  const reacts = (size: number) =>
    new Promise<boolean>((resolve) => {
      const timer = setTimeout(() => resolve(false), answerMs)
      const done = (is: boolean) => {
        clearTimeout(timer)
        resolve(is)
      }
      let seen = 0
      socket.on('data', ({ length }) => {
        seen += length
        if (seen >= size) done(true)
      })
      socket.on('close', () => done(true))
    })
  try {
    socket.on('error', () => {})
    socket.setNoDelay(true)
    const text = (value: string) => [Buffer.byteLength(value), ...Buffer.from(value)]
    const handshake = [
      [5, 1, username === undefined ? 0 : 2],
      ...(username === undefined ? [] : [[1, ...text(username), ...text(password)]]),
    ]
    for (const words of handshake) {
      const isAnswered = reacts(2)
      socket.write(Buffer.from(words))
      if (!(await isAnswered) || socket.destroyed) return undefined
      socket.removeAllListeners('data')
    }
    // To nowhere, which each HAG refuses at once (probe.ts), with as much behind it as fills a segment.
    const request = Buffer.alloc(fillBytes)
    request.set([5, 1, 0, 1, 255, 255, 255, 255, 0, 1])
    const isAnswered = reacts(1)
    socket.write(request)
    return await isAnswered
  } finally {
    socket.destroy()
  }
}
