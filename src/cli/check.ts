import { networkInterfaces } from 'node:os'
import { checkConfig, loadGateway } from '../config/load.js'
import { sameAddress } from '../config/schema.js'
import { type Command, configFile, configOption } from './command.js'

export const command: Command = {
  help: `Usage: bondsocks check [-c] FILE

Validates a config of either kind and says which it is. Every fault is one line: FILE:LINE:COLUMN: path: message. Also says if two WANs
of this machine have the same address. Does not read password files or users files: \`run\` and \`hag\` do.

Exit codes: 0 valid, 2 not valid or not readable.
`,
  options: configOption,
  maxOperands: 1,
  async run(values, [file = configFile(values)]) {
    const kind = checkConfig(file)
    process.stdout.write(`${file}: ${kind} config, valid\n`)
    if (kind === 'gateway') for (const text of sharedAddresses(file)) process.stdout.write(`${file}: on this machine: ${text}\n`)
    return 0
  },
}

/** Modems of one make often come with the same network. */
function sharedAddresses(file: string): string[] {
  const here = networkInterfaces()
  const all = loadGateway(file).wans.flatMap(({ name, interface: device }) =>
    (here[device] ?? []).flatMap(({ family, address }) => (family === 'IPv4' ? [{ name, address }] : [])),
  )
  return all
    .filter(({ address }, at) => all.findIndex((one) => one.address === address) < at)
    .map(({ name, address }) => `WAN ${name} cannot be used: its address ${sameAddress(address)}`)
}
