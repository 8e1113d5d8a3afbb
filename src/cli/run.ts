import { loadGateway } from '../config/load.js'
import { type Command, configFile, configOption } from './command.js'

export const command: Command = {
  help: `Usage: bondsocks run -c FILE

The gateway, in the foreground: sets the network up, redirects the LAN's TCP connections and carries them over all WANs. As root.
Begins with what there is: WANs, the LAN and HAGs that are missing are named in the log, and taken in when they come.
Logs JSON lines to standard output. SIGTERM or SIGINT: stops accepting, lets connections end for drain_seconds (default 10), then
aborts them and takes the network set-up away; a second signal aborts at once. SIGHUP is ignored.

  -c, --config FILE   the gateway config

Exit codes: 0 stopped by a signal, 1 failed, 2 wrong config or wrong credentials.
`,
  options: configOption,
  async run(values) {
    const config = loadGateway(configFile(values))
    const { endsSoon } = await import('../service/signals.js')
    const { runGateway } = await import('../gateway/gateway.js')
    await runGateway(config).finally(endsSoon)
    return 0
  },
}
