#!/usr/bin/env node
/** argv -> command; errors -> one line and an exit code. A command is imported only when it runs: so `check` works without the addon. */
import './service/no-debugger.js'
import { parseArgs } from 'node:util'
import { setFlagsFromString } from 'node:v8'
import { BondsocksError } from './base/errors.js'
import { nearest } from './base/nearest.js'
import { version } from './base/version.js'
import { type Command, type ExitCode, usageError } from './cli/command.js'
import { closeDebugger } from './service/no-debugger.js'

// These flags keep the memory small that starting leaves behind, so they are set before anything else is loaded.
for (const flag of [
  // V8 lets its young generation grow to 32 MB, and loading modules makes it grow. Connections need little of it, and for a short time: with 1
  // MB, 5,000 idle connections add 2 MB to the process instead of 11.
  '--semi-space-growth-factor=1',
  // Loading needs neither the optimizing compiler, which takes 10 MB resident memory, nor the baseline compiler, which takes 1.5 MB;
  // `hasStarted` allows both.
  '--no-opt',
  '--no-sparkplug',
  // Otherwise 2 MB stay, because loading leaves a little in every page.
  '--compact-on-every-full-gc',
])
  setFlagsFromString(flag)

const commands: Record<string, { summary: string; load(): Promise<{ command: Command }> }> = {
  run: { summary: 'the gateway: network set-up and redirector, in the foreground', load: () => import('./cli/run.js') },
  hag: { summary: 'the Hybrid Access Gateway: SOCKS5 over MPTCP, in the foreground', load: () => import('./cli/hag.js') },
  check: { summary: 'validate a config file of either kind', load: () => import('./cli/check.js') },
  plan: { summary: 'what apply would change here; changes nothing', load: () => import('./cli/plan.js') },
  apply: { summary: 'install the network set-up; a second apply changes nothing', load: () => import('./cli/apply.js') },
  status: { summary: 'the running gateway or HAG at a glance', load: () => import('./cli/status.js') },
  monitor: { summary: 'what happens to them, as it happens', load: () => import('./cli/monitor.js') },
  remove: { summary: 'take away all that is ours, with no config and after any crash', load: () => import('./cli/remove.js') },
  lab: { summary: 'a LAN, a gateway with two WANs, a HAG and a server, in namespaces', load: () => import('./cli/lab.js') },
}

const help = `Usage: bondsocks COMMAND [OPTION...]

Carries a LAN's TCP connections over several WANs at once, with Multipath TCP, up to a Hybrid Access Gateway (HAG).

Commands:
${Object.entries(commands)
  .map(([name, { summary }]) => `  ${name.padEnd(8)} ${summary}`)
  .join('\n')}

  bondsocks COMMAND --help   its options and their defaults
  bondsocks --version

Exit codes: 0 done, 1 failed, 2 wrong use or wrong config, 3 nothing runs (status, monitor).
`

async function main(argv: readonly string[]): Promise<ExitCode> {
  const [name, ...rest] = argv
  if (name === undefined || name === '--help' || name === '-h' || name === 'help') {
    ;(name === undefined ? process.stderr : process.stdout).write(help)
    return name === undefined ? 2 : 0
  }
  if (name === '--version') {
    process.stdout.write(`${version()}\n`)
    return 0
  }
  const entry = Object.hasOwn(commands, name) ? commands[name] : undefined
  if (entry === undefined) {
    throw usageError(`there is no ${name.startsWith('-') ? 'option' : 'command'} \`${name}\`${hint(name, Object.keys(commands))}`)
  }
  const { command } = await entry.load()
  closeDebugger()
  const options = { help: { type: 'boolean', short: 'h' }, ...command.options } as const
  const { values, positionals } = parse(name, rest, options)
  if (values.help === true) {
    process.stdout.write(command.help)
    return 0
  }
  const extra = positionals[command.maxOperands ?? 0]
  if (extra !== undefined) throw usageError(`${name} does not take \`${extra}\`; see \`bondsocks ${name} --help\``)
  return command.run(values, positionals)
}

function parse(name: string, args: string[], options: NonNullable<Command['options']>) {
  try {
    const { values, positionals } = parseArgs({ args, options, allowPositionals: true })
    return { values: values as Record<string, string | boolean | undefined>, positionals }
  } catch (error) {
    const unknown = /^Unknown option '(-{1,2}[^']*)'/.exec((error as Error).message)?.[1]
    if (unknown === undefined) throw usageError(`${name}: ${(error as Error).message.split('. ')[0]}`)
    const known = Object.keys(options).map((option) => `--${option}`)
    throw usageError(`${name} has no option \`${unknown}\`${hint(unknown, known)}; see \`bondsocks ${name} --help\``)
  }
}

function hint(word: string, known: readonly string[]): string {
  const near = nearest(word, known)
  return near === undefined ? '' : `, did you mean \`${near}\`?`
}

function report(thrown: unknown): ExitCode {
  const error = thrown as NodeJS.ErrnoException
  if (error instanceof BondsocksError) {
    // Config errors are lines of `FILE:LINE:COLUMN: message`, as editors read them.
    process.stderr.write(error.code === 'CONFIG' ? `${error.message}\n` : `bondsocks: ${error.message}\n`)
    if (process.env.BONDSOCKS_DEBUG !== undefined && error.cause instanceof Error) process.stderr.write(`${error.cause.stack}\n`)
    return error.exitCode
  }
  if (error?.code === 'MODULE_NOT_FOUND' && error.message.includes('bondsocks.node')) {
    process.stderr.write('bondsocks: the addon is not built: run `npm run build`\n')
    return 1
  }
  if (error?.code === 'ERR_DLOPEN_FAILED') {
    process.stderr.write(
      `bondsocks: the addon was built for another machine: run \`npm run build\` (${error.message.split('\n')[0]})\n`,
    )
    return 1
  }
  const debug = process.env.BONDSOCKS_DEBUG !== undefined
  process.stderr.write(
    `bondsocks: unexpected error: ${error?.message ?? String(thrown)}${debug ? '' : ' (BONDSOCKS_DEBUG=1 shows where)'}\n`,
  )
  if (debug && error?.stack !== undefined) process.stderr.write(`${error.stack}\n`)
  return 1
}

// It is no error if the reader goes away (`bondsocks plan | head`), or the terminal. Node 20 cannot exit without the terminal that it began
// with: it aborts, with a core dump (ResetStdio in src/node.cc).
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0)
  if (error.code === 'EIO') process.kill(process.pid, 'SIGKILL')
  throw error
})

try {
  process.exitCode = await main(process.argv.slice(2))
} catch (thrown) {
  process.exitCode = report(thrown)
}
