import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import { statSync } from 'node:fs'
import { readUsers } from '../config/secrets.js'
import type { Log } from '../telemetry/log.js'

const checkFileMs = 2000
/** Of users, 100,000 or so. */
const largestFile = 10_000_000

/** Users of a `users_file`. A changed file counts from the next login on; a faulty one is reported, and the former users stay. */
export class Users {
  readonly #file: string
  readonly #log: Pick<Log, 'info' | 'warn'>
  // Digests of equal length make the comparison's time independent of the password; the key keeps them from being of use elsewhere.
  readonly #key = randomBytes(32)
  #digests: Map<string, Buffer>
  /** Of the file as it was read. */
  #version: string
  /** What has been said of a file that cannot be read: it is tried again at every look. */
  readonly #complaints = new Set<string>()
  readonly #now: () => number
  #checkedAt: number

  /** Throws BondsocksError where the file is missing or faulty. */
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
      // A login must not wait for what is written into a pipe, nor hold a disk's worth of text.
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

/** Of a file that cannot be looked at it is why not, and to read it fails for the same reason. */
function versionOf(file: string): string {
  try {
    const { ino, mtimeMs, size } = statSync(file)
    return `${ino} ${mtimeMs} ${size}`
  } catch (error) {
    return String((error as NodeJS.ErrnoException).code)
  }
}
