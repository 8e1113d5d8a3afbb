import { spawn } from 'node:child_process'
import { BondsocksError } from '../base/errors.js'
import { nearest } from '../base/nearest.js'
import { type Lab, type LabOptions, labAttach, labDown, labList, labUp } from '../lab/lab.js'
import { runScenario } from '../lab/scenario.js'
import { scenarios } from '../lab/scenarios/index.js'
import { parseTopology, topologies } from '../lab/topology.js'
import { type Command, usageError, type Values } from './command.js'

const help = `Usage: bondsocks lab up [TOPOLOGY] [--name NAME] [--slow N]
       bondsocks lab down [NAME | --all]
       bondsocks lab list
       bondsocks lab shell HOST [--name NAME]
       bondsocks lab run SCENARIO [--name NAME] [--slow N]

A home's LAN, its gateway with two WANs, a HAG and a server, each in a network namespace of its own on this machine. As root. Several
labs can exist at once; none touches the machine's own network. The WANs have a rate, a delay and a queue: by netem, or by an
emulator of our own where the kernel has no netem.

  up      makes a lab; its gateway, HAG and server do not run yet
  down    removes it, with every process that runs in it
  shell   opens a shell in one of its hosts
  run     makes a lab, runs the real programs in it, prints what was measured, and removes it

Topologies:
  hybrid        the default: dsl 20/5 Mbit/s, 15 ms one way; lte 30/10 Mbit/s, 35 ms. Hosts: lan, cpe, hag, hag2, server
  ethernet      two Ethernet WANs, 10 and 100 Mbit/s, to a HAG at 4.4.4.4. Hosts: lan, cpe, hag, hag2, server
  two-routers   client and server with two addresses each, 15 Mbit/s in sum. Hosts: client, r1, r2, server

Scenarios:
${Object.entries(scenarios)
  .map(([name, { summary }]) => `  ${name.padEnd(15)} ${summary}`)
  .join('\n')}

  --name NAME   default: a random one for \`up\` and \`run\`, the only one there is for \`down\` and \`shell\`
  --slow N      divides the WANs' rates by N, and gives what takes time N times as long: for a slow machine
  --all         every lab, also what a crash has left
`

type Action = (operand: string | undefined, values: Values) => Promise<0 | 1>

const actions: Record<string, Action> = {
  async up(topology = topologies[0], values) {
    const lab = await labUp({ topology: parseTopology(topology), ...labOptions(values) })
    process.stdout.write(describe(lab))
    return 0
  },

  async down(name, values) {
    if (values.all === true && name !== undefined) throw usageError('lab down takes a NAME or --all')
    const names = values.all === true ? await labList() : [name ?? (await onlyLab(values))]
    for (const one of names) await labDown(one)
    process.stdout.write(names.length === 0 ? 'no lab is up\n' : `removed: ${names.join(', ')}\n`)
    return 0
  },

  async list() {
    for (const name of await labList()) {
      const about = await labAttach(name).then(
        ({ topology, links }) => `${topology} (${links})`,
        () => `being made, or left by a crash: \`bondsocks lab down ${name}\` removes it`,
      )
      process.stdout.write(`${name}  ${about}\n`)
    }
    return 0
  },

  async shell(host, values) {
    if (host === undefined) throw usageError('lab shell: in which host?')
    const lab = await labAttach(await onlyLab(values))
    const [file = '', ...args] = lab.argv(host, [process.env.SHELL ?? '/bin/sh'])
    const child = spawn(file, args, { stdio: 'inherit', env: { ...process.env, PS1: `${host} of ${lab.name} # ` } })
    // Ctrl-C is for the shell, not for us.
    process.on('SIGINT', () => {})
    const code = await new Promise<number>((resolve, reject) =>
      child.once('error', reject).once('close', (code) => resolve(code ?? 1)),
    )
    return code === 0 ? 0 : 1
  },

  async run(title, values) {
    if (title === undefined) throw usageError(`lab run: which scenario? ${Object.keys(scenarios).join(', ')}`)
    const scenario = Object.hasOwn(scenarios, title) ? scenarios[title] : undefined
    if (scenario === undefined) throw usageError(`there is no scenario ${unknown(title, Object.keys(scenarios))}`)
    await runScenario(scenario, labOptions(values))
    return 0
  },
}

export const command: Command = {
  help,
  options: { name: { type: 'string' }, slow: { type: 'string' }, all: { type: 'boolean' } },
  maxOperands: 2,
  async run(values, [verb, operand]) {
    if (verb === undefined) throw usageError(`lab: what? ${Object.keys(actions).join(', ')}`)
    const action = Object.hasOwn(actions, verb) ? actions[verb] : undefined
    if (action === undefined) throw usageError(`lab cannot ${unknown(verb, Object.keys(actions))}`)
    return action(operand, values)
  },
}

function unknown(word: string, known: readonly string[]): string {
  const near = nearest(word, known)
  return `\`${word}\`: ${near === undefined ? `it is one of ${known.join(', ')}` : `did you mean \`${near}\`?`}`
}

function labOptions({ name, slow = '1' }: Values): Pick<LabOptions, 'name' | 'slow'> {
  if (typeof slow !== 'string' || !/^\d{1,3}$/.test(slow) || Number(slow) < 1)
    throw usageError('lab: --slow takes a number from 1 to 999')
  return { slow: Number(slow), name: typeof name === 'string' ? name : undefined }
}

/** The lab of `--name`, or the only one. */
async function onlyLab({ name }: Values): Promise<string> {
  if (typeof name === 'string') return name
  const names = await labList()
  if (names.length === 1) return names[0] as string
  if (names.length === 0) throw new BondsocksError('NO_LAB', 'no lab is up: `bondsocks lab up` makes one')
  throw usageError(`which lab? There are ${names.join(', ')}: say --name`)
}

function describe(lab: Lab): string {
  const { name, topology, links, wans, addresses, configs } = lab
  const lines = wans.map(
    (wan) =>
      `  ${wan.name.padEnd(6)} ${wan.rateDown}/${wan.rateUp} Mbit/s, ${wan.delayMs} ms one way, ${wan.address4} on ${wan.interface}`,
  )
  const programs =
    topology === 'two-routers'
      ? []
      : [
          '',
          `  bondsocks lab shell hag --name ${name}       then: bondsocks hag -c ${configs.hag}`,
          `  bondsocks lab shell cpe --name ${name}       then: bondsocks run -c ${configs.gateway}`,
          `  bondsocks lab shell server --name ${name}    then: any TCP server, for instance iperf3 -s`,
          `  bondsocks lab shell lan --name ${name}       then: its client, here iperf3 -R -c ${addresses.server}`,
        ]
  return `lab ${name}: ${topology}, links by ${links}
  hosts: ${Object.keys(lab.hosts).join(', ')} (namespaces bs-${name}-HOST)
${[...lines, ...programs].join('\n')}
  bondsocks lab down ${name}
`
}
