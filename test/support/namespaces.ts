/** Network namespaces for tests: random names, removed when the test ends, and at the latest when the test's process does. */
import { execFile, execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)

/** Registers a clean-up, as any tap test does. */
export interface Scope {
  teardown(handler: () => unknown): unknown
}

/** For `t.test(name, { skip: needsRoot }, ...)`. */
export const needsRoot: string | false = process.getuid?.() === 0 ? false : 'needs root, to make network namespaces'

/** The same, for links of our emulator. */
export const needsTun: string | false = existsSync('/dev/net/tun') ? false : 'there is no /dev/net/tun'

/** The same, for tests beside programs of others. */
export function needsPrograms(...names: string[]): string | false {
  const folders = [...(process.env.PATH ?? '').split(':'), '/usr/sbin', '/sbin']
  const missing = names.filter((name) => !folders.some((folder) => existsSync(join(folder, name))))
  return missing.length > 0 && `needs ${missing.join(' and ')}: scripts/setup --test installs them`
}

/** The same, for tests of speed; scripts/test-kernel sets this. */
export const needsSpeed: string | false =
  process.env.BONDSOCKS_TEST_EMULATED !== undefined && 'an emulated processor is too slow to tell'

const alive = new Set<string>()
// A test that times out is ended without its teardown handlers.
process.on('exit', () => {
  for (const name of alive) removeNow(name)
})

export class Namespace {
  constructor(readonly name: string) {}

  /** The command line that runs `argv` in here. `ip` replaces itself, so the process id is the program's. */
  argv(...argv: string[]): string[] {
    return ['ip', 'netns', 'exec', this.name, ...argv]
  }

  /** Runs a command to its end and returns its output; rejects if it fails. */
  async exec(...argv: string[]): Promise<string> {
    const [file = '', ...rest] = this.argv(...argv)
    return (await run(file, rest, { maxBuffer: 64 << 20 })).stdout
  }
}

/**
 * A random name for a namespace or a lab. It begins with the prefix that scripts/test gave this run, so that scripts/test can remove what a
 * killed test left behind.
 */
export function randomName(): string {
  return `${process.env.BONDSOCKS_TEST_RUN ?? 'bst'}${randomBytes(3).toString('hex')}`
}

export async function createNamespace(scope: Scope, label = 'ns'): Promise<Namespace> {
  const name = `${randomName()}-${label}`
  await run('ip', ['netns', 'add', name])
  alive.add(name)
  scope.teardown(() => {
    removeNow(name)
    alive.delete(name)
  })
  const namespace = new Namespace(name)
  // Duplicate address detection keeps an IPv6 address unusable for a second or two, and half of a snapshot missing.
  await namespace.exec('sysctl', '-eqw', 'net.ipv6.conf.all.accept_dad=0', 'net.ipv6.conf.default.accept_dad=0')
  await namespace.exec('ip', 'link', 'set', 'lo', 'up')
  return namespace
}

export interface Port {
  namespace: Namespace
  device: string
  /** Addresses with prefix, of either family. */
  addresses: string[]
}

/** Joins two namespaces with a veth pair; both ends are up and have their addresses when it resolves. */
export async function connect(first: Port, second: Port): Promise<void> {
  await run('ip', [
    ...['link', 'add', 'name', first.device, 'netns', first.namespace.name, 'type', 'veth'],
    ...['peer', 'name', second.device, 'netns', second.namespace.name],
  ])
  for (const { namespace, device, addresses } of [first, second]) {
    for (const address of addresses) {
      await namespace.exec('ip', 'address', 'add', address, 'dev', device)
    }
    await namespace.exec('ip', 'link', 'set', 'dev', device, 'up')
  }
}

/** Ends the processes that still run in a namespace, by their ids, and removes it. */
function removeNow(name: string): void {
  try {
    for (const pid of execFileSync('ip', ['netns', 'pids', name], { encoding: 'utf8' }).split('\n')) {
      if (/^\d+$/.test(pid) && readdirSync('/proc').includes(pid)) process.kill(Number(pid), 'SIGKILL')
    }
    execFileSync('ip', ['netns', 'delete', name], { stdio: 'ignore' })
  } catch {
    // Gone already: the aim is reached.
  }
}
