/** What each WAN has carried in this calendar month: counted from its interface, and kept in a file. */
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import * as z from 'zod'
import type { Log } from '../telemetry/log.js'
import type { Carried } from './counters.js'

/** Bytes in both directions by month (2026-11, local time) and WAN: a clock that was wrong for a while spoils no other month. */
const contents = z.record(z.string().regex(/^\d{4}-\d\d$/), z.record(z.string(), z.number().min(0)))

const keptMonths = 12
const saveMs = 5 * 60_000

export interface VolumeOptions {
  file: string
  log: Log
  /** The month we are in. */
  month?: () => string
}

export class Volume {
  readonly #options: VolumeOptions
  readonly #months: z.output<typeof contents>
  readonly #last = new Map<string, number>()
  #savedAt = Number.NEGATIVE_INFINITY
  #unsaved = false
  #complaint = ''

  constructor(options: VolumeOptions) {
    this.#options = options
    this.#months = this.#read()
  }

  /** Adds what an interface has carried since the last look; `now`: milliseconds of a clock that never jumps. */
  count(wans: readonly { name: string; interface: string }[], counters: ReadonlyMap<string, Carried>, now: number): void {
    for (const wan of wans) {
      const carried = counters.get(wan.interface)
      if (carried === undefined) continue
      const total = carried.received + carried.sent
      const last = this.#last.get(wan.name)
      this.#last.set(wan.name, total)
      // The first look of a run begins the count; fewer than before: the interface was made anew and counts from zero.
      const more = last === undefined ? 0 : total < last ? total : total - last
      if (more === 0) continue
      const month = this.#now()
      this.#months[month] = { ...this.#months[month], [wan.name]: this.used(wan.name) + more }
      const oldest = Object.keys(this.#months).sort()
      for (const old of oldest.slice(0, -keptMonths)) if (old !== month) delete this.#months[old]
      this.#unsaved = true
    }
    if (now - this.#savedAt < saveMs) return
    // Not at the first look: nothing has been counted yet.
    if (this.#savedAt !== Number.NEGATIVE_INFINITY) this.save()
    this.#savedAt = now
  }

  /** Bytes of this month. */
  used(wan: string): number {
    return this.#months[this.#now()]?.[wan] ?? 0
  }

  /** Never throws; a file that cannot be written is said once. */
  save(): void {
    if (!this.#unsaved) return
    const { file } = this.#options
    try {
      mkdirSync(dirname(file), { recursive: true })
      writeFileSync(`${file}.new`, `${JSON.stringify(this.#months)}\n`)
      renameSync(`${file}.new`, file)
      this.#unsaved = false
      this.#complaint = ''
    } catch (error) {
      this.#complain(`the WANs' volume cannot be kept in ${file}: ${(error as Error).message}`)
    }
  }

  #read(): z.output<typeof contents> {
    const { file } = this.#options
    try {
      return contents.parse(JSON.parse(readFileSync(file, 'utf8')))
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      if (code !== 'ENOENT') this.#complain(`${file} cannot be read (${code ?? 'damaged'}): the WANs' volume begins at 0`)
      return {}
    }
  }

  #complain(text: string): void {
    if (text !== this.#complaint) this.#options.log.warn(text)
    this.#complaint = text
  }

  #now(): string {
    return (this.#options.month ?? thisMonth)()
  }
}

function thisMonth(): string {
  const date = new Date()
  return `${date.getFullYear()}-${String(date.getMonth() + 1).padStart(2, '0')}`
}
