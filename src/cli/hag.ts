import { loadHag } from '../config/load.js'
import { type Command, configFile, configOption } from './command.js'

export const command: Command = {
  help: `Usage: bondsocks hag -c FILE

The Hybrid Access Gateway, in the foreground: a SOCKS5 server over MPTCP. Runs as any user. As root it also sets up what
\`plan\` shows, and takes that away at its end. Logs JSON lines to standard output. SIGTERM or SIGINT: stops accepting, lets
connections end for drain_seconds (default 10), then aborts them; a second signal aborts at once. SIGHUP is ignored.

  -c, --config FILE   the HAG config

Exit codes: 0 stopped by a signal, 1 failed, 2 wrong config or wrong users file.
`,
  options: configOption,
  async run(values) {
    const config = loadHag(configFile(values))
    const { endsSoon } = await import('../service/signals.js')
    const { runHag } = await import('../hag/hag.js')
    await runHag(config).finally(endsSoon)
    return 0
  },
}
