/** The faults in the lab while the soak's load runs: they hit one WAN at a time, or the HAG, never both WANs. */
import type { World } from '../support/hybrid.js'
import type { Program } from '../support/process.js'
import { sleep } from '../support/wait.js'
import type { Chance } from './random.js'

/** The time in which a request may fail: it must have ended within the window. From Date.now(), like `over`. */
export interface Window {
  what: string
  from: number
  until: number
  /** When the fault was over: the WAN was back, or a HAG answered again. */
  over?: number
  /** Meanwhile a connection may go to its server without a HAG, over one WAN. */
  isDirect: boolean
}

const wans = ['dsl', 'lte'] as const
type Cut = { what: string; wan: (typeof wans)[number]; how: 'carrier' | 'blackHole' }
type Restart = { what: string; signal: 'SIGTERM' | 'SIGKILL' }
const cuts: Cut[] = wans.flatMap((wan) => [
  { what: `link down: ${wan}`, wan, how: 'carrier' },
  { what: `black hole: ${wan}`, wan, how: 'blackHole' },
])
const restarts: Restart[] = [
  { what: 'HAG ended', signal: 'SIGTERM' },
  { what: 'HAG killed', signal: 'SIGKILL' },
]

/** It takes about 1 s until a WAN is found down. Connections whose only subflow went over it are reset within 2 s after that. */
const cutMs = 4000
/**
 * docs/behaviour.md: connections over a dead HAG are reset, at the latest when another HAG answers in its place, and are found one by one. Of a
 * request without answer that takes 15 s if the HAG's RST is lost.
 */
const hagMs = 16_000

export class Chaos {
  readonly windows: Window[] = []
  readonly counts: Record<string, number> = {}
  private deck: (Cut | Restart)[] = []
  private isOver = false

  constructor(
    private readonly world: World,
    private readonly chance: Chance,
    /** The HAG that runs now. */
    private hag: Program,
    private readonly onHag: (hag: Program) => void,
    private readonly say: (what: string) => void,
  ) {}

  /** Makes one fault after another until `stop` is called. Resolves when the last one is over. */
  async run(): Promise<void> {
    this.isOver = false
    while (await this.rest(this.chance.between(2000, 6000))) {
      if (this.deck.length === 0) this.deck = this.shuffle()
      const fault = this.deck.shift()
      if (fault === undefined) return
      this.counts[fault.what] = (this.counts[fault.what] ?? 0) + 1
      this.say(fault.what)
      if ('signal' in fault) await this.restartHag(fault)
      else await this.cut(fault)
    }
  }

  stop(): void {
    this.isOver = true
  }

  /** Mixes cuts and restarts, so that a short run has both. */
  private shuffle(): (Cut | Restart)[] {
    const [one, two] = this.chance.shuffled(restarts)
    const [first, second, third, fourth] = this.chance.shuffled(cuts)
    return [first, one, second, third, two, fourth].filter((fault) => fault !== undefined)
  }

  private async rest(ms: number): Promise<boolean> {
    for (const until = Date.now() + ms; !this.isOver && Date.now() < until; ) await sleep(100)
    return !this.isOver
  }

  private async cut({ what, wan, how }: Cut): Promise<void> {
    const { lab } = this.world
    const window: Window = { what, from: Date.now(), until: Number.POSITIVE_INFINITY, isDirect: false }
    this.windows.push(window)
    await (how === 'carrier' ? lab.carrier(wan, false) : lab.blackHole(wan, true))
    // On a busy machine it takes a while until the WAN is really cut.
    window.until = Date.now() + cutMs
    await sleep(this.chance.between(2500, 8000))
    await (how === 'carrier' ? lab.carrier(wan, true) : lab.blackHole(wan, false))
    window.over = Date.now()
    // The other WAN must not be cut before this one is back in the bundle.
    await sleep(6000)
  }

  private async restartHag({ what, signal }: Restart): Promise<void> {
    const window: Window = { what, from: Date.now(), until: Number.POSITIVE_INFINITY, isDirect: true }
    this.windows.push(window)
    await this.hag.end(signal)
    await sleep(this.chance.between(0, 3000))
    this.hag = await this.world.startHag(hagKeys)
    this.onHag(this.hag)
    window.over = Date.now()
    window.until = window.over + hagMs
    await sleep(hagMs)
  }
}

/** Otherwise an orderly end of the HAG would take as long as its longest connection. */
export const hagKeys = { drain_seconds: 2 }
