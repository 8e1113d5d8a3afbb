import { type Command, configFile, configOption } from './command.js'
import { planOrApply } from './network.js'
import { renderSteps } from './render.js'

export const command: Command = {
  help: `Usage: bondsocks plan -c FILE [--json]

Shows what \`apply\` would change on this machine, one step a line, in order. Changes nothing, but needs root to look.

  -c, --config FILE   the config, a gateway's or a HAG's
      --json          the steps, WANs and notes as JSON
`,
  options: { ...configOption, json: { type: 'boolean' } },
  async run(values) {
    const plan = await planOrApply('plan', configFile(values))
    const { steps, wans, notes } = plan
    if (values.json === true)
      process.stdout.write(`${JSON.stringify({ steps: steps.map(({ text }) => text), wans, notes }, null, 2)}\n`)
    else process.stdout.write(renderSteps(plan, 'nothing to do: all is as the config says'))
    return 0
  },
}
