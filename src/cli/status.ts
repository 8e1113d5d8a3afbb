import { BondsocksError } from '../base/errors.js'
import { ControlClient } from '../control/client.js'
import { controlPath, controlPaths } from '../control/path.js'
import type { GatewayStatus, HagStatus } from '../control/status.js'
import { type Command, configOption, type ExitCode, usageError } from './command.js'
import { renderStatus } from './status-text.js'
import { watchText } from './watch.js'

type Status = GatewayStatus | HagStatus

const nothingRuns = 'nothing of bondsocks runs in this network namespace\n'
const watchHelp = `q  ends this
?  shows this, and the status again

WAN      down and up: of its interface, all traffic; the bars compare the WANs
bundle   connections to HAGs older than 2 s that have a subflow over each WAN that they should use
         sent again: packets that were lost, or came too late
client   the connections that moved a byte last
`

export const command: Command = {
  help: `Usage: bondsocks status [-c FILE] [--watch | --json]

What the gateway and the HAGs of this network namespace do now: WANs, HAGs, the proof that connections are bonded, and limits.
For root, and for the group that the config names (control_group). A HAG that does not run as root is not found.

  -c, --config FILE   only the one with this config; if it does not run, what \`plan\` would show
      --watch         again every second, until q is pressed
      --json          one JSON object a line for each; config/status.schema.json describes it

Exit codes: 0 something runs, 1 failed, 2 wrong use, 3 nothing runs.
`,
  options: { ...configOption, json: { type: 'boolean' }, watch: { type: 'boolean' } },
  async run(values) {
    const file = typeof values.config === 'string' ? values.config : undefined
    const findPaths = file === undefined ? controlPaths : async () => [await pathFor(file)]
    if (values.watch === true) {
      if (values.json === true) throw usageError('status takes either --watch or --json')
      return watch(findPaths)
    }
    const found = await statuses(await findPaths())
    if (values.json === true) for (const status of found) process.stdout.write(`${JSON.stringify(status)}\n`)
    else process.stdout.write(textOf(found, process.stdout.columns || 120))
    if (found.length > 0) return 0
    if (file !== undefined && values.json !== true) await showPlan(file)
    return 3
  },
}

const textOf = (found: readonly Status[], columns: number) =>
  found.length === 0 ? nothingRuns : found.map((status) => renderStatus(status, columns)).join('\n')

async function watch(findPaths: () => Promise<string[]>): Promise<ExitCode> {
  const { stdin: input, stdout: output } = process
  if (!(input.isTTY && output.isTTY)) throw usageError('status --watch needs a terminal; programs use --json')
  const ended = new AbortController()
  for (const signal of ['SIGTERM', 'SIGHUP'] as const) process.once(signal, () => ended.abort())
  // What runs may end, and come back.
  const read = async (columns: number) => {
    try {
      return textOf(await statuses(await findPaths()), columns)
    } catch (error) {
      if (error instanceof BondsocksError && error.code === 'CONTROL') return `${error.message}\n`
      throw error
    }
  }
  await watchText(read, watchHelp, { input, output }, ended.signal)
  return 0
}

async function statuses(paths: readonly string[]): Promise<Status[]> {
  const answers = paths.map(async (path) => {
    const client = await ControlClient.connect(path)
    if (client === undefined) return []
    try {
      return [(await client.ask('status')) as Status]
    } finally {
      client.close()
    }
  })
  return (await Promise.all(answers)).flat()
}

async function pathFor(file: string): Promise<string> {
  const { loadEither } = await import('../config/load.js')
  const { kind, config } = loadEither(file)
  return controlPath(kind === 'gateway' ? 'gateway' : `hag-${config.listen.port}`)
}

async function showPlan(file: string): Promise<void> {
  const { planOrApply } = await import('./network.js')
  const { renderSteps } = await import('./render.js')
  process.stdout.write(`\n\`bondsocks plan\` of ${file}:\n`)
  process.stdout.write(renderSteps(await planOrApply('plan', file), 'nothing to do: all is as the config says'))
}
