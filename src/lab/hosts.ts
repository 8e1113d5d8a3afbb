/** Makes a network namespace a host: sysctls, addresses, routes, address translation. */
import { setTimeout as sleep } from 'node:timers/promises'
import { must } from './commands.js'
import type { End, Plan } from './topology.js'

/** To be called when the host's devices exist. */
export async function configure(host: string, plan: Plan, namespace: string): Promise<void> {
  const sysctls = [
    ...(plan.routers.includes(host) ? ['net/ipv4/ip_forward 1', 'net/ipv6/conf/all/forwarding 1'] : []),
    // A router cannot resolve its neighbours until its link-local address is verified, which would take a second.
    'net/ipv6/conf/*/accept_dad 0',
    // A veth must keep its IPv6 addresses while the plug is pulled.
    'net/ipv6/conf/all/keep_addr_on_down 1',
    // The lab's devices have only the addresses of the plan.
    'net/ipv6/conf/*/accept_ra 0',
  ]
  // Without IPv6 in the kernel these files do not exist; then adding the addresses below fails and tells it.
  const script =
    'while read -r files value; do for file in /proc/sys/$files; do [ ! -e "$file" ] || echo "$value" > "$file" || exit 1; done; done'
  await must(['ip', 'netns', 'exec', namespace, 'sh', '-c', script], `${sysctls.join('\n')}\n`)

  const ends = plan.wires.flatMap(({ ends }) => ends).filter((end) => end.host === host)
  const lines = [
    ...bringUp({ device: 'lo', addresses: plan.loopbacks[host] ?? [] }),
    ...ends.flatMap(bringUp),
    ...(plan.routes[host] ?? []).map((route) => `route add ${route}`),
  ]
  await must(['ip', '-n', namespace, '-batch', '-'], `${lines.join('\n')}\n`)
  if (host !== plan.edge) return
  for (const iptables of ['iptables', 'ip6tables']) {
    for (const device of plan.masquerade) {
      const rule = ['-t', 'nat', '-A', 'POSTROUTING', '-o', device, '-j', 'MASQUERADE']
      await must(['ip', 'netns', 'exec', namespace, iptables, '-w', ...rule])
    }
  }
}

/** Commands for `ip -batch`. Without nodad an IPv6 address cannot be used for a second or two. */
export function bringUp({ device, addresses }: Pick<End, 'device' | 'addresses'>): string[] {
  const add = (address: string) => `address add ${address} dev ${device}${address.includes(':') ? ' nodad' : ''}`
  return [...addresses.map(add), `link set ${device} up`]
}

const carrierMs = 2000

/** A veth gets its carrier, and its routes become usable, some milliseconds after both ends are up. */
export async function awaitCarrier(namespace: string): Promise<void> {
  const deadline = performance.now() + carrierMs
  while (performance.now() < deadline) {
    if (!(await must(['ip', '-n', namespace, 'link', 'show'])).includes('NO-CARRIER')) return
    await sleep(20)
  }
}
