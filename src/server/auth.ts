import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import { statSync } from 'node:fs'
import { readUsers } from '../config/secrets.js'
import type { Log } from '../telemetry/log.js'

const checkFileMs = 2000

/** Users of a `users_file`. A changed file counts from the next login on; a faulty one is reported, and the former users stay. */
export class Users {
  readonly #file: string
  readonly #log: Pick<Log, 'info' | 'warn'>
  // Digests of equal length make the comparison's time independent of the password; the key keeps them from being of use elsewhere.
  readonly #key = randomBytes(32)
  #digests: Map<string, Buffer>
  #version: string
  readonly #now: () => number
  #checkedAt: number

  /** Throws BondsocksError where the file is missing or faulty. */
  constructor(file: string, log: Pick<Log, 'info' | 'warn'>, now: () => number = () => performance.now()) {
    this.#file = file
    this.#log = log
    this.#now = now
    this.#checkedAt = now()
    this.#version = fileVersion(file)
    this.#digests = this.#read()
  }

  accepts(username: string, password: string): boolean {
    this.#refresh()
    const given = this.#digest(password)
    const expected = this.#digests.get(username)
    // An unknown user takes as long as a wrong password.
    return timingSafeEqual(given, expected ?? this.#key) && expected !== undefined
  }

  #read(): Map<string, Buffer> {
    const users = readUsers(this.#file, (message) => this.#log.warn(message))
    return new Map([...users].map(([name, password]) => [name, this.#digest(password)]))
  }

  #digest(password: string): Buffer {
    return createHmac('sha256', this.#key).update(password).digest()
  }

  #refresh(): void {
    const now = this.#now()
    if (now - this.#checkedAt < checkFileMs) return
    this.#checkedAt = now
    const version = fileVersion(this.#file)
    if (version === this.#version) return
    this.#version = version
    try {
      this.#digests = this.#read()
      this.#log.info(`users_file ${this.#file} read again: ${this.#digests.size} users`)
    } catch (error) {
      this.#log.warn(`${(error as Error).message}; the former users stay`)
    }
  }
}

function fileVersion(file: string): string {
  const stat = statSync(file, { throwIfNoEntry: false })
  return stat === undefined ? 'missing' : `${stat.ino} ${stat.mtimeMs} ${stat.size}`
}
