/** Debian's Dante under mptcpize: a HAG that is not ours. */
import type { World } from './hybrid.js'
import type { Scope } from './namespaces.js'
import { type Program, start } from './process.js'

export async function startDante(
  scope: Scope,
  world: World,
  host: 'hag' | 'hag2',
  method: 'none' | 'username',
  /** Whom it serves, and what. */
  rules = `client pass { from: 0.0.0.0/0 to: 0.0.0.0/0 }
socks pass { from: 0.0.0.0/0 to: 0.0.0.0/0 command: connect }`,
): Promise<Program> {
  const address = world.lab.addresses[host]
  const configuration = `
logoutput: stdout
internal: ${address} port = 1080
external: ${address}
clientmethod: none
socksmethod: ${method}
user.unprivileged: nobody
${rules}
`
  const file = world.file('danted.conf', configuration)
  const program = start(scope, world.lab.argv(host, ['mptcpize', 'run', 'danted', '-f', file]))
  await program.waitFor(/running/)
  return program
}
