/** The kernel that we run on. The only place where programs are started. */
import { type ExecFileException, execFile, spawn } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { mkdir, readFile, rename, rm, rmdir, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { BondsocksError } from '../shared/errors.js'
import type { CommandResult, Kernel } from './kernel.js'

/** iptables waits up to 5 s for its lock; nothing else we run takes longer than a moment. */
const timeoutMs = 10_000
const capNetAdmin = 12n

/** Far more than the longest list of firewall rules. */
const mostOutput = 2 ** 26
const execute = promisify(execFile)
/** `code` is the exit code, or the system error that kept it from starting. */
type Failed = Omit<ExecFileException, 'code'> & Omit<Partial<CommandResult>, 'code'> & { code?: number | string }
const environment = () => ({ ...process.env, LC_ALL: 'C' })

/** Runs a command to its end, at most 10 s. Never rejects. */
export async function runCommand(argv: readonly string[], input?: string): Promise<CommandResult> {
  const [file = '', ...args] = argv
  try {
    const options = { env: environment(), timeout: timeoutMs, killSignal: 'SIGKILL', maxBuffer: mostOutput } as const
    const running = execute(file, args, options)
    // One that ends without reading its input says why by itself.
    running.child.stdin?.on('error', () => {}).end(input)
    return { code: 0, ...(await running) }
  } catch (thrown) {
    const { code, killed, message, stdout = '', stderr = '' } = thrown as Failed
    if (code === 'ENOENT') return { code: 127, stdout, stderr: `${file} is not installed` }
    if (killed) return { code: 124, stdout, stderr: `${stderr}no end after ${timeoutMs / 1000} s` }
    return typeof code === 'number' ? { code, stdout, stderr } : { code: 1, stdout, stderr: stderr || message.trim() }
  }
}

/** Runs a command until the signal and hands over what it prints as it comes. Never rejects; resolves with why it ended. */
export function streamCommand(argv: readonly string[], onOutput: (text: string) => void, signal: AbortSignal): Promise<string> {
  const [file = '', ...args] = argv
  return new Promise((resolve) => {
    const child = spawn(file, args, { stdio: ['ignore', 'pipe', 'pipe'], env: environment(), signal })
    let said = ''
    child.stdout.setEncoding('utf8').on('data', onOutput)
    // What is printed is never kept, this runs for years; of the errors the last.
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      said = text.trim()
    })
    child.on('error', ({ message }) => {
      said = message
    })
    child.on('close', (code) => resolve(said || `exit code ${code}`))
  })
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

async function stateFile(): Promise<string> {
  // Loaded late, so that commands which never touch the network work without the addon.
  const { native } = await import('../native/index.js')
  return `/run/bondsocks/net-${native.netnsCookie()}/network.json`
}

/** An abstract name (unix(7)): one for each network namespace, held by one process, and free once that has ended, however it did. */
const lockName = '\0bondsocks-network'
const lockTryMs = 20

async function lock(): Promise<() => void> {
  const deadline = performance.now() + timeoutMs
  for (;;) {
    const server = createServer((client) => client.destroy())
    const trouble = await new Promise<string | undefined>((resolve) => {
      server.once('error', ({ code }: NodeJS.ErrnoException) => resolve(code))
      server.listen(lockName, () => resolve(undefined))
    })
    // Before 20.8 Node had no abstract names: then without.
    if (trouble !== 'EADDRINUSE') return () => server.close()
    if (performance.now() > deadline) {
      const what = `another bondsocks has been changing the network for ${timeoutMs / 1000} s: ss -xlp shows it as @bondsocks-network`
      throw new BondsocksError('LOCKED', what, { retryable: true })
    }
    await sleep(lockTryMs)
  }
}

export function systemKernel(): Kernel {
  return {
    run: runCommand,
    lock,

    async readSysctls(patterns) {
      // Some 50 files of a few bytes, made by the kernel while they are read: a tenth of the CPU time that asynchronous reading takes.
      const read = (path: string) => {
        const text = orNothing(() => readFileSync(join(root, path), 'utf8'))
        return text === undefined ? [] : [[path, text.trim().replace(/\s+/g, ' ')] as const]
      }
      return new Map(patterns.flatMap(expand).flatMap(read))
    },

    async writeSysctl(path, value) {
      await writeFile(join(root, path), value)
    },

    async readState() {
      return readFile(await stateFile(), 'utf8').catch((error: NodeJS.ErrnoException) => {
        if (error.code === 'ENOENT') return undefined
        throw error
      })
    },

    async writeState(text) {
      const file = await stateFile()
      const folder = dirname(file)
      if (text === undefined) {
        await rm(file, { force: true })
        // Others may keep files of their own there.
        for (const empty of [folder, dirname(folder)]) await rmdir(empty).catch(() => {})
        return
      }
      await mkdir(folder, { recursive: true })
      // Whole or not at all, whenever we are killed.
      await writeFile(`${file}.new`, text, { mode: 0o600 })
      await rename(`${file}.new`, file)
    },

    async mayAdminister() {
      const status = await readFile('/proc/self/status', 'utf8')
      const effective = BigInt(`0x${status.match(/^CapEff:\s*([0-9a-f]+)$/m)?.[1] ?? '0'}`)
      return ((effective >> capNetAdmin) & 1n) === 1n
    },
  }
}
