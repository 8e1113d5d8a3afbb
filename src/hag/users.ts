import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import { statSync } from 'node:fs'
import { readUsers } from '../config/secrets.js'
import type { Log } from '../telemetry/log.js'

const checkFileMs = 2000
/** Bytes; enough for some 100,000 users. */
const largestFile = 10_000_000

/** The users of a `users_file`. A changed file is read at the next login. A faulty one is reported, and the former users stay. */
export class Users {
  readonly #file: string
  readonly #log: Pick<Log, 'info' | 'warn'>
  // Digests of equal length make the time of a comparison independent of the password. With a random key they are useless elsewhere.
  readonly #key = randomBytes(32)
  #digests: Map<string, Buffer>
  /** Identifies the version of the file that was read. */
  #version: string
  /** What was logged about a file that cannot be read, because each look tries again. */
  readonly #complaints = new Set<string>()
  readonly #now: () => number
  #checkedAt: number

  /** Throws BondsocksError if the file is missing or faulty. */
  constructor(file: string, log: Pick<Log, 'info' | 'warn'>, now: () => number = () => performance.now()) {
    this.#file = file
    this.#log = log
    this.#now = now
    this.#checkedAt = now()
    this.#version = versionOf(file)
    this.#digests = this.#read((message) => log.warn(message))
  }

  accepts(username: string, password: string): boolean {
    this.#refresh()
    const given = this.#digest(password)
    const expected = this.#digests.get(username)
    // An unknown user takes as long as a wrong password.
    return timingSafeEqual(given, expected ?? this.#key) && expected !== undefined
  }

  #read(warn: (message: string) => void): Map<string, Buffer> {
    const users = readUsers(this.#file, warn)
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
      this.#digests = this.#read((message) => this.#complain(message))
      this.#version = version
      this.#complaints.clear()
      this.#log.info(`users_file ${this.#file} read again: ${this.#digests.size} users`)
    } catch (error) {
      this.#complain(`${(error as Error).message}; the former users stay`)
    }
  }

  #complain(message: string): void {
    if (this.#complaints.has(message)) return
    this.#complaints.add(message)
    this.#log.warn(message)
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
