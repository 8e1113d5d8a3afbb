import type { Command } from './command.js'
import { renderSteps } from './render.js'

export const command: Command = {
  help: `Usage: bondsocks remove

Takes away all that bondsocks has set up in this network namespace, with no config and after any crash. As root.
Stop \`run\` and \`hag\` first: a running one sets its part up again.
`,
  async run() {
    const { Network, systemKernel } = await import('../network/network.js')
    const { removeStaleSockets } = await import('../control/path.js')
    await removeStaleSockets()
    const steps = await new Network(systemKernel()).remove({ hags: true })
    process.stdout.write(renderSteps({ steps, notes: [] }, 'nothing to do: nothing of ours is here'))
    return 0
  },
}
