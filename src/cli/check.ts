import { checkConfig } from '../config/load.js'
import type { Command } from './command.js'

export const command: Command = {
  help: `Usage: bondsocks check FILE

Validates a config of either kind and says which it is. Every fault is one line: FILE:LINE:COLUMN: path: message.

Exit codes: 0 valid, 2 not valid or not readable.
`,
  operands: { min: 1, max: 1 },
  async run(_values, [file = '']) {
    process.stdout.write(`${file}: ${checkConfig(file)} config, valid\n`)
    return 0
  },
}
