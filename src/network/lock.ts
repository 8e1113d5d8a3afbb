/**
 * Locks for one process at a time: flock(2) on files that only root can open, so that no other user can hold them. The kernel
 * releases them when the process ends, however it ends.
 */
import {
  chmodSync,
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmdirSync,
  statSync,
  unlinkSync,
  writeSync,
} from 'node:fs'
import { dirname } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { BondsocksError } from '../base/errors.js'
import { needsRoot } from './state.js'

/** `network`: held while the set-up is changed. `gateway`: held while a gateway runs, and after a kill until its set-up is removed. */
export type LockName = 'network' | 'gateway'

/** A process among several that share changes to their machine; the last one removes them. */
export interface Membership {
  readonly isFirst: boolean
  /** To be called once, at the end. If this is the last one, nobody else can join until `release`. */
  isLast(): boolean
  release(): void
}

export interface Lock {
  /** A process that inherits it holds the lock, too. Undefined if the folder is read-only, so that there is no lock. */
  readonly fd: number | undefined
  readonly path: string
  readonly release: () => void
}

export interface LockOptions {
  /** Tests pass their own. */
  folder?: string
  /** The owner of the folder and the files. */
  owner?: number
}

/** Others may reach a control socket in it that its group may use, but neither list it nor open a lock. */
const folderMode = 0o711
const retryMs = 20
const joinMs = 10_000

/** Takes the lock of this network namespace. Rejects with `LOCKED` and the holder's process id when the patience (ms) is over. */
export async function takeLock(name: LockName, patienceMs: number, options: LockOptions = {}): Promise<Lock> {
  const { folder = '/run/bondsocks', owner = 0 } = options
  // Imported here, so that commands that do not touch the network work without the addon.
  const { native } = await import('../engine/load.js')
  const path = `${folder}/net-${native.netnsCookie()}.${name}.lock`
  const deadline = performance.now() + patienceMs
  for (;;) {
    let holder = ''
    const fd = open(path, folder, owner)
    if (fd === 'read-only') return { fd: undefined, path, release: () => {} }
    if (fd !== undefined) {
      const isOurs = native.tryLock(fd)
      // The last holder removes the file.
      if (isOurs && isAt(fd, path)) {
        signFile(fd)
        return { fd, path, release: () => release(fd, path, folder) }
      }
      if (!isOurs) holder = readFileSync(fd, 'latin1').trim()
      closeSync(fd)
    }
    if (performance.now() > deadline) throw lockedBy(name, holder, patienceMs)
    await sleep(retryMs)
  }
}

/** For when it cannot be found out who else is here. */
export const alone: Membership = { isFirst: true, isLast: () => true, release: () => {} }

/** Joins the HAGs of this network namespace. Rejects as `takeLock`. */
export async function joinHags({ folder = '/run/bondsocks', owner = 0 }: LockOptions = {}): Promise<Membership> {
  const { native } = await import('../engine/load.js')
  const path = `${folder}/net-${native.netnsCookie()}.hags.lock`
  const deadline = performance.now() + joinMs
  for (;;) {
    const fd = open(path, folder, owner)
    if (fd === 'read-only') return alone
    if (fd !== undefined) {
      // The last one holds the lock alone while it removes its changes and the file.
      const isFirst = native.tryLock(fd)
      if (native.tryLock(fd, true) && isAt(fd, path)) return membership(isFirst, () => native.tryLock(fd), fd, path, folder)
      closeSync(fd)
    }
    if (performance.now() > deadline) throw new BondsocksError('LOCKED', 'another HAG has been ending for 10 s')
    await sleep(retryMs)
  }
}

/** Whether a HAG runs in this network namespace. Rejects with `NOT_ROOT`. */
export async function isHagHere({ folder = '/run/bondsocks' }: LockOptions = {}): Promise<boolean> {
  const { native } = await import('../engine/load.js')
  try {
    const fd = openSync(`${folder}/net-${native.netnsCookie()}.hags.lock`, constants.O_RDONLY | constants.O_NOFOLLOW)
    const isHeld = !native.tryLock(fd)
    closeSync(fd)
    return isHeld
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    if (code === 'EACCES' || code === 'EPERM') throw new BondsocksError('NOT_ROOT', needsRoot, { cause })
    return false
  }
}

function membership(isFirst: boolean, tryAlone: () => boolean, fd: number, path: string, folder: string): Membership {
  let isLast = false
  return {
    isFirst,
    isLast() {
      isLast = tryAlone()
      return isLast
    },
    release: () => (isLast ? release(fd, path, folder) : closeSync(fd)),
  }
}

/** undefined: the folder was removed meanwhile. */
function open(path: string, folder: string, owner: number): number | 'read-only' | undefined {
  try {
    makeFolder(folder, owner)
    const fd = openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600)
    const stat = fstatSync(fd)
    if (stat.isFile() && stat.uid === owner) return fd
    closeSync(fd)
    throw new BondsocksError('BAD_FOLDER', `${path} is not a file of root's: delete it`)
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException
    if (cause instanceof BondsocksError) throw cause
    if (code === 'ENOENT') return undefined
    if (code === 'EROFS' || code === 'ENOSPC' || code === 'EDQUOT') return 'read-only'
    if (code === 'EACCES' || code === 'EPERM') {
      throw new BondsocksError('NOT_ROOT', needsRoot, { cause })
    }
    throw new BondsocksError('BAD_FOLDER', `${path} cannot be locked: ${message}`, { cause })
  }
}

/** Throws `BAD_FOLDER`, or a system error. */
export function makeFolder(folder: string, owner: number): void {
  try {
    mkdirSync(dirname(folder), { recursive: true })
    mkdirSync(folder, { mode: folderMode })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
  }
  const stat = lstatSync(folder)
  if (!stat.isDirectory() || stat.uid !== owner) {
    throw new BondsocksError('BAD_FOLDER', `${folder} is not a folder of root's: delete it`)
  }
  if ((stat.mode & 0o777) !== folderMode) chmodSync(folder, folderMode)
}

/** Writes our process id for those who wait. On a full disk the file stays empty. */
function signFile(fd: number): void {
  try {
    ftruncateSync(fd)
    writeSync(fd, `${process.pid}\n`, 0)
  } catch {
    // The lock holds without it.
  }
}

function isAt(fd: number, path: string): boolean {
  const [held, there] = [fstatSync(fd), statSync(path, { throwIfNoEntry: false })]
  return there !== undefined && there.ino === held.ino && there.dev === held.dev
}

function release(fd: number, path: string, folder: string): void {
  try {
    unlinkSync(path)
    rmdirSync(folder)
  } catch {
    // Other files are there.
  }
  closeSync(fd)
}

function lockedBy(name: LockName, holder: string, patienceMs: number): BondsocksError {
  const who = /^\d+$/.test(holder) ? `process ${holder}` : 'another process'
  const what =
    name === 'network' ? 'has been changing the network' : 'has been the gateway here, or takes away what one has left,'
  return new BondsocksError('LOCKED', `${who} ${what} for ${patienceMs / 1000} s: wait for its end, or end it`)
}
