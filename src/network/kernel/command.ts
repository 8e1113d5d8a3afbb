/** The real kernel. The only importer of execa. */
import { accessSync, closeSync, constants, existsSync, openSync, readdirSync, readFileSync } from 'node:fs'
import { mkdir, readFile, rename, rm, rmdir, writeFile } from 'node:fs/promises'
import { Socket } from 'node:net'
import { dirname, join } from 'node:path'
import { execa, type Result } from 'execa'
import { takeLock } from '../lock.js'
import type { CommandResult, Kernel } from './kernel.js'
import { readLeases } from './leases.js'

/** iptables waits up to 5 s for its lock; nothing else we run takes longer than a moment. */
const timeoutMs = 10_000
const capNetAdmin = 12n

// In a process group of its own, so that a Ctrl-C does not end it halfway.
const common = { env: { LC_ALL: 'C' }, reject: false, stripFinalNewline: false, detached: true } as const

/** Runs a command to its end, at most 10 s. The process inherits the descriptor `lock`. Never rejects. */
export async function runCommand(argv: readonly string[], input?: string, lock?: number): Promise<CommandResult> {
  const [file = '', ...args] = argv
  // execa's types know descriptors below 10 only.
  const inherited = (lock ?? 'ignore') as 3 | 'ignore'
  const options = { ...common, timeout: timeoutMs }
  const child =
    input === undefined
      ? begin(() => execa(file, args, { ...options, stdio: ['ignore', 'pipe', 'pipe', inherited] }))
      : begin(() => execa(file, args, { ...options, stdio: ['pipe', 'pipe', 'pipe', inherited], input }))
  return child === undefined ? { code: 1, stdout: '', stderr: notBegun(file) } : resultOf(file, await child)
}

/**
 * Undefined if no descriptor is left: Node's child has no streams then, and execa (9.6) throws. Node reports the error to the process, too
 * (StopSignals).
 */
const begin = <Child>(spawn: () => Child): Child | undefined => orNothing(spawn)
const notBegun = (file: string) => `${file} cannot be started: no descriptor is left`

type Ended = Pick<Result<{ reject: false }>, 'code' | 'timedOut' | 'exitCode' | 'shortMessage'> & {
  stdout: string
  stderr: string
}

function resultOf(file: string, result: Ended): CommandResult {
  const { stdout, stderr } = result
  if (result.code === 'ENOENT') return { code: 127, stdout, stderr: `${file} is not installed` }
  if (result.timedOut) return { code: 124, stdout, stderr: `${stderr}no end after ${timeoutMs / 1000} s` }
  return {
    code: result.exitCode ?? 1,
    stdout,
    stderr: result.exitCode === undefined ? stderr || (result.shortMessage ?? '') : stderr,
  }
}

/**
 * Runs one command line again and again, like `runCommand`, each time in a process that was started in advance and waits for its input.
 * Starting one takes 8 ms, twice that on a busy machine, and until then connections do not leave a lost WAN.
 */
export function startedInAdvance(file: string, args: readonly string[]): (input: string) => Promise<CommandResult> {
  const prepare = () => {
    const child = begin(() => execa(file, args, { ...common, stdin: 'pipe' }))
    if (child === undefined) return undefined
    // It does not keep our process alive, and ends with it, because its input ends.
    child.unref()
    for (const stream of [child.stdin, child.stdout, child.stderr]) if (stream instanceof Socket) stream.unref()
    return child
  }
  let waiting = prepare()
  return async (input) => {
    const child = waiting
    const isThere = child?.pid !== undefined && child.exitCode === null && child.signalCode === null
    if (isThere) child.stdin.end(input)
    waiting = prepare()
    if (!isThere) return runCommand([file, ...args], input)
    const timer = setTimeout(() => child.kill('SIGKILL'), timeoutMs)
    const result = await child
    clearTimeout(timer)
    return resultOf(file, result)
  }
}

/** Runs a command until the signal, and hands over its output as it comes. Never rejects; resolves with the reason why it ended. */
export async function streamCommand(
  argv: readonly string[],
  onOutput: (text: string) => void,
  signal: AbortSignal,
): Promise<string> {
  const [file = '', ...args] = argv
  const child = begin(() =>
    execa(file, args, {
      stdin: 'ignore',
      env: { LC_ALL: 'C' },
      reject: false,
      // Do not keep the output: this runs for years.
      buffer: false,
      cancelSignal: signal,
    }),
  )
  if (child === undefined) return notBegun(file)
  child.stdout.setEncoding('utf8').on('data', onOutput)
  const { exitCode, stderr, shortMessage } = await child
  return stderr || shortMessage || `exit code ${exitCode}`
}

const root = '/proc/sys'

function expand(pattern: string): string[] {
  const [before, after] = pattern.split('/*/')
  if (before === undefined || after === undefined) return [pattern]
  const names = orNothing(() => readdirSync(join(root, before))) ?? []
  return names.map((name) => `${before}/${name}/${after}`)
}

function orNothing<Value>(read: () => Value): Value | undefined {
  try {
    return read()
  } catch {
    return undefined
  }
}

/** Opening it for writing changes nothing, and fails if a write would. */
function isFixed(path: string): boolean {
  return orNothing(() => closeSync(openSync(join(root, path), constants.O_WRONLY)) ?? true) === undefined
}

const isUnwritable = ({ code = '' }: NodeJS.ErrnoException) => ['EROFS', 'ENOSPC', 'EDQUOT'].includes(code)

/** The folder of the state file, or its nearest parent that exists. */
function isRunReadOnly(): boolean {
  try {
    accessSync(['/run/bondsocks', '/run'].find(existsSync) ?? '/', constants.W_OK)
    return false
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EROFS'
  }
}

async function stateFile(): Promise<string> {
  // Imported here, so that commands that do not touch the network work without the addon.
  const { native } = await import('../../engine/load.js')
  return `/run/bondsocks/net-${native.netnsCookie()}/network.json`
}

/** `standby`: for a long-running program, so that a batch of `ip` commands begins at once. */
export function systemKernel({ standby = false } = {}): Kernel {
  const batch = standby ? startedInAdvance('ip', ['-batch', '-']) : undefined
  /** Commands that run under the lock inherit it: if we are killed, the next process waits for their end. */
  let held: number | undefined
  /** The state if it cannot be kept in a file. */
  let memory: string | undefined
  const write = async (text: string) => {
    const file = await stateFile()
    const folder = dirname(file)
    // One by one, because `recursive` fails with ENOENT if the disk is full.
    for (const one of [dirname(dirname(folder)), dirname(folder), folder]) {
      await mkdir(one).catch((error: NodeJS.ErrnoException) => {
        if (!existsSync(one)) throw error
      })
    }
    // Written completely or not at all, whenever we are killed.
    await writeFile(`${file}.new`, text, { mode: 0o600 })
    await rename(`${file}.new`, file)
  }
  return {
    async run(argv, input) {
      return batch !== undefined && input !== undefined && argv.join(' ') === 'ip -batch -'
        ? batch(input)
        : runCommand(argv, input, held)
    },
    async lock() {
      const lock = await takeLock('network', timeoutMs)
      held = lock.fd
      return () => {
        held = undefined
        lock.release()
      }
    },

    async readSysctls(patterns) {
      // Synchronous: some 50 files of a few bytes, which the kernel makes while they are read. It takes a tenth of the CPU time.
      const read = (path: string) => {
        const text = orNothing(() => readFileSync(join(root, path), 'utf8'))
        return text === undefined ? [] : [[path, text.trim().replace(/\s+/g, ' ')] as const]
      }
      return new Map(patterns.flatMap(expand).flatMap(read))
    },

    async fixedSysctls(paths) {
      return new Set(paths.filter(isFixed))
    },

    async writeSysctl(path, value) {
      await writeFile(join(root, path), value)
    },

    async keepsState() {
      return memory === undefined && !isRunReadOnly()
    },

    readLeases: () => readLeases(),

    async readState() {
      if (memory !== undefined) return memory
      return readFile(await stateFile(), 'utf8').catch((error: NodeJS.ErrnoException) => {
        if (error.code === 'ENOENT') return undefined
        throw error
      })
    },

    async writeState(text) {
      const file = await stateFile()
      memory = undefined
      if (text !== undefined) {
        await write(text).catch(async (error: NodeJS.ErrnoException) => {
          if (!isUnwritable(error)) throw error
          memory = text
          await rm(`${file}.new`, { force: true }).catch(() => {})
        })
        return
      }
      await rm(file, { force: true }).catch((error) => {
        if (!isUnwritable(error)) throw error
      })
      // There may be other files.
      for (const empty of [dirname(file), dirname(dirname(file))]) await rmdir(empty).catch(() => {})
    },

    async mayAdminister() {
      const status = await readFile('/proc/self/status', 'utf8')
      const effective = BigInt(`0x${status.match(/^CapEff:\s*([0-9a-f]+)$/m)?.[1] ?? '0'}`)
      return ((effective >> capNetAdmin) & 1n) === 1n
    },
  }
}
