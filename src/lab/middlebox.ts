/** Middleboxes at the far end of a WAN, or in front of a HAG: nftables rules in the host that all packets pass. */
import { must } from './commands.js'
import type { Lab } from './lab.js'

const table = 'ip bondsocks_lab'

/** Rules by kind; `{}` stands for the WAN's device or the HAG's address. */
const kinds = {
  /** Removes the MPTCP option from every packet. */
  'strip-mptcp': {
    in: 'iifname {} tcp option mptcp exists reset tcp option mptcp',
    out: 'oifname {} tcp option mptcp exists reset tcp option mptcp',
  },
  /** Drops SYNs of new MPTCP connections (subtype 0, RFC 8684 section 3.1). */
  'block-mptcp': { in: 'iifname {} tcp flags syn tcp option mptcp subtype 0 drop', out: '' },
  /** Drops SYNs that join an MPTCP connection (subtype 1, RFC 8684 section 3.2). */
  'block-join': { in: 'iifname {} tcp flags syn tcp option mptcp subtype 1 drop', out: '' },
  /** Removes their option: each becomes a connection of its own. */
  'strip-join': { in: 'iifname {} tcp flags syn tcp option mptcp subtype 1 reset tcp option mptcp', out: '' },
  /** Resets them, as a firewall may. */
  'refuse-join': { in: 'iifname {} tcp flags syn tcp option mptcp subtype 1 reject with tcp reset', out: '' },
  /** Drops all TCP, and nothing else. */
  'block-tcp': { in: 'iifname {} meta l4proto tcp drop', out: 'oifname {} meta l4proto tcp drop' },
  /** Resets every TCP connection, as an operator may whose bill was not paid. */
  refuse: { in: 'iifname {} meta l4proto tcp reject with tcp reset', out: '' },
  /** Drops all packets to and from an address. */
  silence: { in: 'ip daddr {} drop', out: 'ip saddr {} drop' },
} as const

export type Middlebox = keyof typeof kinds

/** Adds one on a WAN (`where` is its device), or in front of an address of the HAG's host. */
export async function putMiddlebox(lab: Lab, kind: Middlebox, where: string): Promise<void> {
  const rule = (text: string) => text.replace('{}', where.includes('.') ? where : `"${where}"`)
  const chain = (name: string, hook: string, text: string) =>
    `  chain ${name} {\n    type filter hook ${hook} priority -300\n    ${rule(text)}\n  }\n`
  // Refused packets go to this host, so they pass the input hook, which `reject` needs on older kernels.
  const arriving = kind.startsWith('refuse') ? 'input' : 'prerouting'
  const text = `table ${table} {\n${chain('arriving', arriving, kinds[kind].in)}${chain('leaving', 'postrouting', kinds[kind].out)}}\n`
  await must(lab.argv('hag', ['nft', '-f', '-']), text)
}

/** Removes what `putMiddlebox` added. */
export async function takeMiddlebox(lab: Lab): Promise<void> {
  await must(lab.argv('hag', ['nft', 'delete', 'table', ...table.split(' ')]))
}
