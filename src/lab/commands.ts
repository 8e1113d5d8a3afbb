/** Runs the lab's own commands. */
import { type ChildProcess, spawn } from 'node:child_process'
import { BondsocksError } from '../base/errors.js'

export interface Executed {
  stdout: string
  stderr: string
  /** 124 if it took too long; 128 if a signal ended it. */
  code: number
}

export interface ExecOptions {
  /** Default: 60 s. */
  timeoutMs?: number
  input?: string
}

/** Runs a command to its end. Rejects only if it cannot be started. */
export function execute(argv: readonly string[], { timeoutMs = 60_000, input }: ExecOptions = {}): Promise<Executed> {
  const [file = '', ...args] = argv
  return new Promise((resolve, reject) => {
    const child = spawn(file, args, { stdio: [input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'] }) as ChildProcess
    const chunks = { stdout: [] as Buffer[], stderr: [] as Buffer[] }
    child.stdout?.on('data', (data: Buffer) => chunks.stdout.push(data))
    child.stderr?.on('data', (data: Buffer) => chunks.stderr.push(data))
    // It is no error if a program does not read its input.
    child.stdin?.on('error', () => {}).end(input)
    let isLate = false
    const timer = setTimeout(() => {
      isLate = true
      child.kill('SIGKILL')
    }, timeoutMs)
    child.once('error', (error: NodeJS.ErrnoException) => {
      clearTimeout(timer)
      const message = error.code === 'ENOENT' ? notInstalled(file) : `cannot run ${file}: ${error.message}`
      reject(new BondsocksError('NOT_INSTALLED', message, { cause: error }))
    })
    child.once('close', (code) => {
      clearTimeout(timer)
      const text = (of: Buffer[]) => Buffer.concat(of).toString()
      resolve({ stdout: text(chunks.stdout), stderr: text(chunks.stderr), code: isLate ? 124 : (code ?? 128) })
    })
  })
}

const packages: Record<string, string> = {
  ip: 'iproute2',
  tc: 'iproute2',
  iptables: 'iptables',
  ip6tables: 'iptables',
  nft: 'nftables',
}
const notInstalled = (file: string) => `${file} is not installed: apt-get install ${packages[file] ?? file}`

/** Like `execute`, but a failure is a BondsocksError with the command and its output in one line. Returns its standard output. */
export async function must(argv: readonly string[], input?: string): Promise<string> {
  const { stdout, stderr, code } = await execute(argv, input === undefined ? {} : { input })
  if (code === 0) return stdout
  // `ip netns exec` has its own message if the program is missing.
  const [, missing] = /exec of "([^"]+)" failed: No such file/.exec(stderr) ?? []
  if (missing !== undefined) throw new BondsocksError('NOT_INSTALLED', notInstalled(missing))
  const output = `${stderr}${stdout}`.trim().split('\n').join('; ') || `exit code ${code}`
  throw new BondsocksError('LAB_COMMAND', `\`${argv.join(' ')}\` failed: ${output}`)
}
