/** Counts what each WAN's interface has carried in this calendar month, and keeps it in a file. */
import { readFileSync } from 'node:fs'
import { mkdir, open, rename } from 'node:fs/promises'
import { dirname } from 'node:path'
import * as z from 'zod/mini'
import type { Emit } from '../../telemetry/events.js'
import type { Carried } from '../interface-counters.js'

/** Bytes in both directions by month (2026-11, local time) and WAN. */
const contents = z.record(z.string().check(z.regex(/^\d{4}-\d\d$/)), z.record(z.string(), z.number().check(z.minimum(0))))

const keptMonths = 12
const saveMs = 5 * 60_000
/** If the clock is behind the file for so long, the clock is right, and the file was written by a wrong one. */
const behindMs = 24 * 3_600_000

export interface VolumeOptions {
  file: string
  emit: Emit
  /** The month that the clock says. */
  month?: () => string
}

/**
 * A machine without a real-time clock begins in 1970, or with its firmware's date, and leaps to today when the network answers. So the
 * month never goes back behind the file's, and at a leap this run's count moves along.
 */
export class Volume {
  readonly #options: VolumeOptions
  readonly #months: z.output<typeof contents>
  /** The clock's month, and the month that counts as the present one. */
  #seen: string
  #month: string
  /** What this run has added to that month. */
  #counted = new Map<string, number>()
  #behindSince: number | undefined
  #saving: Promise<void> = Promise.resolve()
  readonly #last = new Map<string, number>()
  #savedAt = Number.NEGATIVE_INFINITY
  #unsaved = false
  /** Why the last try to write it failed. */
  #failure = ''

  constructor(options: VolumeOptions) {
    this.#options = options
    this.#months = this.#read()
    this.#seen = this.#clock()
    this.#month = this.#notBefore(this.#seen)
  }

  /** Adds what the interfaces have carried since the last look; `now`: milliseconds of a clock that never jumps. */
  count(wans: readonly { name: string; interface: string }[], counters: ReadonlyMap<string, Carried>, now: number): void {
    this.#follow(now)
    for (const wan of wans) {
      const carried = counters.get(wan.interface)
      if (carried === undefined) continue
      const total = carried.received + carried.sent
      const last = this.#last.get(wan.name)
      this.#last.set(wan.name, total)
      // The first look of a run begins the count. Fewer bytes than before: the interface was made again and counts from zero.
      const more = last === undefined ? 0 : total < last ? total : total - last
      if (more > 0) this.#add(wan.name, more)
    }
    if (now - this.#savedAt < saveMs) return
    // Not at the first look: nothing has been counted yet.
    if (this.#savedAt !== Number.NEGATIVE_INFINITY) void this.save()
    this.#savedAt = now
  }

  /** Bytes of this month. */
  used(wan: string): number {
    return this.#months[this.#month]?.[wan] ?? 0
  }

  /** Never rejects; a file that cannot be written is said once. */
  save(): Promise<void> {
    this.#saving = this.#saving.then(() => this.#write())
    return this.#saving
  }

  #follow(now: number): void {
    const clock = this.#clock()
    const isLeap = clock !== this.#seen && clock !== following(this.#seen)
    this.#seen = clock
    if (clock >= this.#month) this.#behindSince = undefined
    else this.#behindSince ??= now
    const isBehindForLong = this.#behindSince !== undefined && now - this.#behindSince >= behindMs
    if (clock === this.#month || (clock < this.#month && !isLeap && !isBehindForLong)) return
    const taken = isBehindForLong ? Object.entries(this.#months[this.#month] ?? {}) : [...this.#counted]
    if (isLeap || isBehindForLong) for (const [wan, bytes] of taken) this.#add(wan, -bytes)
    if (isBehindForLong) for (const month of Object.keys(this.#months)) if (month > clock) delete this.#months[month]
    this.#month = this.#notBefore(clock)
    this.#counted = new Map()
    if (isLeap || isBehindForLong) for (const [wan, bytes] of taken) this.#add(wan, bytes)
  }

  #add(wan: string, bytes: number): void {
    const month = { ...this.#months[this.#month] }
    const sum = (month[wan] ?? 0) + bytes
    if (sum > 0) month[wan] = sum
    else delete month[wan]
    this.#months[this.#month] = month
    if (Object.keys(month).length === 0) delete this.#months[this.#month]
    this.#counted.set(wan, (this.#counted.get(wan) ?? 0) + bytes)
    for (const old of Object.keys(this.#months).sort().slice(0, -keptMonths)) if (old !== this.#month) delete this.#months[old]
    this.#unsaved = true
  }

  #notBefore(clock: string): string {
    const latest = Object.keys(this.#months).sort().at(-1) ?? clock
    return clock < latest ? latest : clock
  }

  async #write(): Promise<void> {
    if (!this.#unsaved) return
    const { file, emit } = this.#options
    this.#unsaved = false
    try {
      await mkdir(dirname(file), { recursive: true })
      // Synced before it replaces the old file, so that a power cut leaves one of the two complete.
      await writeSynced(`${file}.new`, `${JSON.stringify(this.#months)}\n`)
      await rename(`${file}.new`, file)
      this.#failure = ''
    } catch (error) {
      this.#unsaved = true
      const { message } = error as Error
      if (message !== this.#failure) emit({ type: 'volume-not-kept', file, reason: message })
      this.#failure = message
    }
  }

  #read(): z.output<typeof contents> {
    const { file, emit } = this.#options
    try {
      return contents.parse(JSON.parse(readFileSync(file, 'utf8')))
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      if (code !== 'ENOENT') emit({ type: 'volume-lost', file, reason: code ?? 'damaged' })
      return {}
    }
  }

  #clock(): string {
    return (this.#options.month ?? thisMonth)()
  }
}

async function writeSynced(file: string, text: string): Promise<void> {
  const handle = await open(file, 'w')
  try {
    await handle.writeFile(text)
    await handle.sync()
  } finally {
    await handle.close()
  }
}

function following(month: string): string {
  const [year = 0, number = 0] = month.split('-').map(Number)
  return number < 12 ? `${year}-${String(number + 1).padStart(2, '0')}` : `${year + 1}-01`
}

function thisMonth(): string {
  const date = new Date()
  return `${date.getFullYear()}-${String(date.getMonth() + 1).padStart(2, '0')}`
}
