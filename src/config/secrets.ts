/** Files with secrets. Their content never gets into a message. */
import { statSync } from 'node:fs'
import { BondsocksError } from '../base/errors.js'
import type { Emit } from '../telemetry/events.js'
import { readText } from './text.js'

/** The password in the first line of a file. Throws BondsocksError with exit code 2. Says if others can read the file. */
export function readPassword(file: string, emit: Emit): string {
  const password = readSecret(file, 'password_file', emit).split(/\r?\n/, 1)[0] as string
  const bytes = Buffer.byteLength(password)
  // RFC 1929 section 2: the length is one octet.
  if (bytes === 0) throw wrong(`password_file ${file} is empty: its first line must be the password`)
  if (bytes > 255) throw wrong(`password_file ${file}: the password is longer than 255 bytes, which RFC 1929 does not allow`)
  return password
}

/**
 * User names and passwords from lines of `name:password`; empty lines and lines that begin with `#` are skipped. The password may
 * contain colons. Throws BondsocksError with exit code 2. Says if others can read the file.
 */
export function readUsers(file: string, emit: Emit): Map<string, string> {
  const users = new Map<string, string>()
  readSecret(file, 'users_file', emit)
    .split(/\r?\n/)
    .forEach((line, index) => {
      if (line === '' || line.startsWith('#')) return
      const colon = line.indexOf(':')
      const [name, password] = [line.slice(0, colon), line.slice(colon + 1)]
      const place = `users_file ${file}, line ${index + 1}:`
      if (colon < 1 || password === '') throw wrong(`${place} write name:password`)
      if (Buffer.byteLength(name) > 255 || Buffer.byteLength(password) > 255) throw wrong(`${place} longer than 255 bytes`)
      if (users.has(name)) throw wrong(`${place} the user ${JSON.stringify(name)} is there twice`)
      users.set(name, password)
    })
  if (users.size === 0) throw wrong(`users_file ${file} has no user: write lines of name:password`)
  return users
}

function readSecret(file: string, key: string, emit: Emit): string {
  try {
    const text = readText(file)
    if ((statSync(file).mode & 0o077) !== 0) emit({ type: 'secret-exposed', key, file })
    return text
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    const why = { ENOENT: 'no such file', EACCES: 'permission denied', EISDIR: 'is a folder' }[code ?? ''] ?? code
    throw wrong(`${key} ${file} cannot be read: ${why}`)
  }
}

function wrong(message: string): BondsocksError {
  return new BondsocksError('SECRET', message, { exitCode: 2 })
}
