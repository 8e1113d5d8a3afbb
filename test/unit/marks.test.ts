/** Rules of others that look up by marks, in front of ours: said when a firewall sets such marks in what we send, and only then. */
import t from 'tap'
import { Network } from '../../src/network/network.js'
import { fakeWorld, furnish, gateway, printing } from '../support/network-world.js'

interface Case {
  name: string
  /** As `ip -N -j rule show` has them. */
  rules: object[]
  mangle?: string[]
  /** What iptables-legacy has. */
  legacy?: string[]
  /** Chains of nft's table `inet fw4` by their heads, with the expressions of their rules, as `nft -j` has them. */
  nft?: Record<string, unknown[][]>
  config?: Record<string, unknown>
  /** The rule that is named, and what sets its mark, if not mangle OUTPUT. */
  named?: string
  setter?: string
}

const mwan3 = [
  { priority: 1001, src: 'all', iif: 'dsl', table: '1' },
  { priority: 2001, src: 'all', fwmark: '0x100', fwmask: '0x3f00', table: '1' },
  { priority: 3001, src: 'all', fwmark: '0x100', fwmask: '0x3f00', action: '7' },
]
const hook = ['-A OUTPUT -j mwan3_hook', '-A mwan3_hook -m mark --mark 0x0/0x3f00 -j mwan3_rules']
const policy = '-A mwan3_rules -m mark --mark 0x0/0x3f00 -j MARK --set-xmark 0x100/0x3f00'
const behind = { rule_priority: 5800 }
const named = '2001: from all fwmark 0x100/0x3f00 lookup 1'

/** OpenWrt's pbr: `meta mark set meta mark & 0xff00ffff | 0x00010000`, in a chain that others jump to. */
const mark = { meta: { key: 'mark' } }
const setMark = (value: unknown) => ({ mangle: { key: mark, value } })
const bits = (value: number, keep: number) => setMark({ '|': [{ '&': [mark, keep] }, value] })
const equals = (left: object, right: unknown) => ({ match: { op: '==', left, right } })
const pbr = [{ priority: 90, src: 'all', fwmark: '0x10000', fwmask: '0xff0000', table: '256' }]
const byPbr = { named: '90: from all fwmark 0x10000/0xff0000 lookup 256', setter: "nft's chain inet fw4 mangle_output" }
const output = 'mangle_output route output'
const marking = { pbr_mark_0x010000: [[{ counter: null }, bits(0x10000, 0xff00ffff)], [{ return: null }]] }
const toHttps = equals({ payload: { protocol: 'tcp', field: 'dport' } }, 443)

const cases: Case[] = [
  {
    name: 'nft, by way of other chains',
    rules: pbr,
    nft: {
      [output]: [[{ jump: { target: 'pbr_output' } }]],
      pbr_output: [[toHttps, { goto: { target: 'pbr_mark_0x010000' } }]],
      ...marking,
    },
    ...byPbr,
  },
  {
    name: 'nft, in a verdict map',
    rules: pbr,
    nft: {
      [output]: [[{ vmap: { key: toHttps.match.left, data: { set: [[443, { jump: { target: 'pbr_mark_0x010000' } }]] } } }]],
      ...marking,
    },
    ...byPbr,
  },
  { name: 'nft, all bits', rules: pbr, nft: { [output]: [[setMark(0x10000)]] }, ...byPbr },
  { name: 'nft, one bit more', rules: pbr, nft: { [output]: [[setMark({ '|': [mark, 0x10000] })]] }, ...byPbr },
  {
    name: 'nft, from a map',
    rules: pbr,
    nft: { [output]: [[setMark({ map: { key: toHttps.match.left, data: { set: [[443, 0x10000]] } } })]] },
    ...byPbr,
  },
  {
    name: 'nft, restored on the way out, set elsewhere',
    rules: pbr,
    nft: { [output]: [[setMark({ ct: { key: 'mark' } })]], 'mangle_prerouting filter prerouting': [[setMark(0x10000)]] },
    ...byPbr,
  },
  { name: 'nft, which no chain for what we send leads to', rules: pbr, nft: { [output]: [], ...marking } },
  { name: 'nft, after which the route is not chosen anew', rules: pbr, nft: { 'late filter output': [[setMark(0x10000)]] } },
  { name: 'nft, for what is forwarded', rules: pbr, nft: { 'forward filter forward': [[setMark(0x10000)]] } },
  {
    name: 'nft, other bits, and a mark that is only taken away',
    rules: pbr,
    nft: { [output]: [[bits(0x20000, 0xff00ffff)], [setMark(0x100)], [setMark({ '&': [mark, 0xff00ffff] })]] },
  },
  {
    name: 'nft, for others than us',
    rules: pbr,
    nft: {
      [output]: [
        [equals({ payload: { protocol: 'udp', field: 'dport' } }, 53), setMark(0x10000)],
        [equals({ meta: { key: 'l4proto' } }, 'udp'), setMark(0x10000)],
        [equals({ meta: { key: 'skuid' } }, 1001), setMark(0x10000)],
        [equals({ meta: { key: 'oifname' } }, 'lo'), setMark(0x10000)],
      ],
    },
  },
  { name: 'mwan3 in front', rules: mwan3, mangle: [...hook, policy], config: behind, named },
  { name: 'mwan3 behind ours, as it is by default', rules: mwan3, mangle: [...hook, policy] },
  {
    name: 'a rule in front of the default',
    rules: [{ ...mwan3[1], priority: 90 }],
    mangle: [...hook, policy],
    named: named.replace('2001', '90'),
  },
  { name: 'in the legacy flavour', rules: mwan3, legacy: [...hook, policy], config: behind, named },
  {
    name: 'a rule without a mask',
    rules: [{ priority: 5, src: 'all', fwmark: '0x1', table: '7' }],
    mangle: ['-A OUTPUT -j MARK --set-xmark 0x1/0xffffffff'],
    named: '5: from all fwmark 0x1 lookup 7',
  },
  {
    name: 'restored in OUTPUT, set elsewhere',
    rules: mwan3,
    mangle: [
      '-A OUTPUT -j CONNMARK --restore-mark --nfmask 0x3f00 --ctmask 0x3f00',
      '-A PREROUTING -i dsl -j MARK --set-xmark 0x100/0x3f00',
    ],
    config: behind,
    named,
  },
  { name: 'nothing sets marks', rules: mwan3, mangle: ['-A OUTPUT -p tcp -j TCPMSS --clamp-mss-to-pmtu'], config: behind },
  { name: 'only what is forwarded is marked', rules: mwan3, mangle: [policy, '-A FORWARD -j mwan3_rules'], config: behind },
  { name: 'another mark', rules: mwan3, mangle: ['-A OUTPUT -j MARK --set-xmark 0x200/0x3f00'], config: behind },
  { name: 'other bits', rules: mwan3, mangle: ['-A OUTPUT -j MARK --set-xmark 0x1/0xff'], config: behind },
  { name: 'a mark that is only taken away', rules: mwan3, mangle: ['-A OUTPUT -j MARK --set-xmark 0x0/0x100'], config: behind },
  {
    name: 'UDP and another user',
    rules: mwan3,
    mangle: [
      '-A OUTPUT -p udp -j MARK --set-xmark 0x100/0x3f00',
      '-A OUTPUT -m owner --uid-owner 1001 -j MARK --set-xmark 0x100/0x3f00',
    ],
    config: behind,
  },
  {
    name: 'all but another user',
    rules: mwan3,
    mangle: ['-A OUTPUT -m owner ! --uid-owner 1001 -j MARK --set-xmark 0x100/0x3f00'],
    config: behind,
    named,
  },
  { name: 'ours have a mark among these bits', rules: mwan3, mangle: [...hook, policy], config: { ...behind, mark: 0x3f00 } },
  {
    name: 'wg-quick',
    rules: [
      { not: null, priority: 70, src: 'all', fwmark: '0xca6c', table: '51820' },
      { priority: 71, src: 'all', table: '254', suppress_prefixlen: 0 },
    ],
    mangle: [
      '-A PREROUTING -p udp -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff',
      '-A POSTROUTING -p udp -m mark --mark 0xca6c -j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff',
    ],
  },
  {
    name: "Tailscale's own mark beside mwan3's",
    rules: [
      { priority: 5210, src: 'all', fwmark: '0x80000', fwmask: '0xff0000', table: '254' },
      { priority: 5270, src: 'all', table: '52' },
    ],
    mangle: [
      ...hook,
      policy,
      '-A OUTPUT -m conntrack --ctstate NEW -m mark ! --mark 0x0/0xff0000 -j CONNMARK --save-mark --nfmask 0xff0000 --ctmask 0xff0000',
    ],
    config: behind,
  },
]

function rulesetOf(chains: Record<string, unknown[][]>): string {
  const place = { family: 'inet', table: 'fw4' }
  const items = Object.entries(chains).flatMap(([head, rules]) => {
    const [name, type, hook] = head.split(' ')
    return [{ chain: { ...place, name, type, hook } }, ...rules.map((expr) => ({ rule: { ...place, chain: name, expr } }))]
  })
  return JSON.stringify({ nftables: [{ metainfo: { json_schema_version: 1 } }, ...items] })
}

for (const { name, rules, mangle = [], legacy = [], nft = {}, config = {}, named, setter = 'mangle OUTPUT' } of cases) {
  t.test(name, async (t) => {
    const world = fakeWorld()
    await furnish(world)
    const kernel = printing(world.kernel, (command, json) =>
      command === 'rule show' ? `${JSON.stringify([...rules, ...(JSON.parse(json || '[]') as object[])])}\n` : `${json}\n`,
    )
    const others: typeof kernel = Object.assign(Object.create(kernel) as typeof kernel, {
      async run(argv: readonly string[], input?: string) {
        if (argv.join(' ') === 'nft -j -t list ruleset') return { code: 0, stdout: rulesetOf(nft), stderr: '' }
        const lines = { 'iptables-save -t mangle': mangle, 'iptables-legacy-save': legacy }[argv.join(' ')]
        if (lines === undefined) return kernel.run(argv, input)
        return { code: 0, stdout: ['*mangle', ':OUTPUT ACCEPT [0:0]', ...lines, 'COMMIT', ''].join('\n'), stderr: '' }
      },
    })
    const { notes } = await new Network(others).plan(gateway(config))
    const said = notes.flatMap(
      (note) => /^the rule "(.*)" is in front of ours, and (.*) sets such marks/.exec(note)?.slice(1) ?? [],
    )
    t.same(said, named === undefined ? [] : [named, setter])
  })
}
