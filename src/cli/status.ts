import { ControlClient } from '../control/client.js'
import { controlPath, controlPaths } from '../control/path.js'
import type { GatewayStatus, HagStatus } from '../control/status.js'
import { type Command, configOption } from './command.js'
import { renderStatus } from './status-text.js'

type Status = GatewayStatus | HagStatus

export const command: Command = {
  help: `Usage: bondsocks status [-c FILE] [--json]

What the gateway and the HAGs of this network namespace do now: WANs, HAGs, the proof that connections are bonded, and limits.
For root, and for the group that the config names (control_group).

  -c, --config FILE   only the one with this config; if it does not run, what \`plan\` would show
      --json          one JSON object a line for each; config/status.schema.json describes it

Exit codes: 0 something runs, 1 failed, 2 wrong use, 3 nothing runs.
`,
  options: { ...configOption, json: { type: 'boolean' } },
  async run(values) {
    const file = typeof values.config === 'string' ? values.config : undefined
    const found = await statuses(file === undefined ? await controlPaths() : [await pathFor(file)])
    for (const status of found) {
      const width = process.stdout.columns ?? 120
      process.stdout.write(values.json === true ? `${JSON.stringify(status)}\n` : renderStatus(status, width))
    }
    if (found.length > 0) return 0
    process.stdout.write(values.json === true ? '' : 'nothing of bondsocks runs in this network namespace\n')
    if (file !== undefined && values.json !== true) await showPlan(file)
    return 3
  },
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
