import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import { statSync } from 'node:fs'
import { readUsers } from '../config/secrets.js'
import type { Emit, Event } from '../telemetry/events.js'

const checkFileMs = 2000
/** Bytes; enough for some 100,000 users. */
const largestFile = 10_000_000

/** The users of a `users_file`. A changed file is read at the next login. A faulty one is reported, and the former users stay. */
export class Users {
  readonly #file: string
  readonly #emit: Emit
  // Digests of equal length make the time of a comparison independent of the password. With a random key they are useless elsewhere.
  readonly #key = randomBytes(32)
  #digests: Map<string, Buffer>
  /** Identifies the version of the file that was read. */
  #version: string
  /** What was said about a file that cannot be read, because each look tries again. */
  readonly #complaints = new Set<string>()
  readonly #now: () => number
  #checkedAt: number

  /** Throws BondsocksError if the file is missing or faulty. */
  constructor(file: string, emit: Emit, now: () => number = () => performance.now()) {
    this.#file = file
    this.#emit = emit
    this.#now = now
    this.#checkedAt = now()
    this.#version = versionOf(file)
    this.#digests = this.#read(emit)
  }

  accepts(username: string, password: string): boolean {
    this.#refresh()
    const given = this.#digest(password)
    const expected = this.#digests.get(username)
    // An unknown user takes as long as a wrong password.
    return timingSafeEqual(given, expected ?? this.#key) && expected !== undefined
  }

  #read(emit: Emit): Map<string, Buffer> {
    const users = readUsers(this.#file, emit)
    return new Map([...users].map(([name, password]) => [name, this.#digest(password)]))
  }

  #digest(password: string): Buffer {
    return createHmac('sha256', this.#key).update(password).digest()
  }

  #refresh(): void {
    const now = this.#now()
    if (now - this.#checkedAt < checkFileMs) return
    this.#checkedAt = now
    try {
      const version = versionOf(this.#file)
      if (version === this.#version) {
        this.#complaints.clear()
        return
      }
      // Not a pipe, which a login would wait for, nor a file that does not fit into memory.
      const stat = statSync(this.#file, { throwIfNoEntry: false })
      if (stat !== undefined && !(stat.isFile() && stat.size <= largestFile)) {
        throw new Error(`users_file ${this.#file} is no file of at most ${largestFile / 1e6} MB`)
      }
      this.#digests = this.#read((event) => this.#complain(event))
      this.#version = version
      this.#complaints.clear()
      this.#emit({ type: 'users-read', file: this.#file, users: this.#digests.size })
    } catch (error) {
      this.#complain({ type: 'users-kept', reason: (error as Error).message })
    }
  }

  #complain(event: Event): void {
    const complaint = JSON.stringify(event)
    if (this.#complaints.has(complaint)) return
    this.#complaints.add(complaint)
    this.#emit(event)
  }
}

/** If stat(2) fails, the version is its error; reading then fails, too. */
function versionOf(file: string): string {
  try {
    const { ino, mtimeMs, size } = statSync(file)
    return `${ino} ${mtimeMs} ${size}`
  } catch (error) {
    return String((error as NodeJS.ErrnoException).code)
  }
}
