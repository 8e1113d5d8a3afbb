import { type Command, configFile, configOption } from './command.js'
import { planOrApply } from './network.js'
import { renderSteps } from './render.js'

export const command: Command = {
  help: `Usage: bondsocks apply -c FILE

Installs the network set-up alone. As root. A second apply changes nothing. \`bondsocks remove\` takes all of it away.

On a gateway: routes, rules, MPTCP endpoints and limits, sysctls, firewall chains. A step that fails takes the earlier ones back. LAN
connections are refused until \`bondsocks run\` serves them; \`run\` does all of this by itself.

On a HAG: the initial window, MPTCP's limit of subflows, a sysctl. What this machine does not allow is a note, and the rest is done.
\`bondsocks hag\` does all of this by itself, and follows the main routing table.

  -c, --config FILE   the config, a gateway's or a HAG's
`,
  options: configOption,
  async run(values) {
    const plan = await planOrApply('apply', configFile(values))
    process.stdout.write(renderSteps(plan, 'nothing to do: all is as the config says'))
    return 0
  },
}
