import { loadGateway } from '../config/load.js'
import { type Command, configFile, configOption } from './command.js'
import { renderSteps } from './render.js'

export const command: Command = {
  help: `Usage: bondsocks apply -c FILE

Installs the network set-up without the redirector: routes, rules, MPTCP endpoints and limits, sysctls, firewall chains. A second
apply changes nothing; a step that fails takes the earlier ones back. As root. \`bondsocks remove\` takes all of it away.

LAN connections are refused until \`bondsocks run\` serves them; \`run\` does all of this by itself.

  -c, --config FILE   the gateway config
`,
  options: configOption,
  async run(values) {
    const config = loadGateway(configFile(values))
    const { Network, systemKernel } = await import('../network/network.js')
    const plan = await new Network(systemKernel()).apply(config)
    process.stdout.write(renderSteps(plan, 'nothing to do: all is as the config says'))
    return 0
  },
}
